"""`forebay model`: what can be asked for."""

from __future__ import annotations

import click
from rich.markup import escape

from forebay.wire.v1 import admin_pb2
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain
from forebay_admin.cli.words import count


@click.group()
def model() -> None:
    """Models: what the backends have.

    \b
    forebay model list
    """


@model.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List models by name, with the backends that have them.

    With --json: a list of {"name", "pools", "backends", "healthy_backends", "context_length", "capabilities"}
    """

    async def work(calls: Calls) -> admin_pb2.ShowModelsResponse:
        return await calls(calls.stub.ShowModels, admin_pb2.ShowModelsRequest())

    models = ask(work).models
    if as_json:
        print_json([plain(m) for m in models])
        return
    print_table(
        ("Name", "#Healthy", "Backends", "Pools", "#Context", "Can"),
        (
            (
                escape(m.name),
                _healthy(m.healthy_backends, len(m.backends)),
                escape(", ".join(m.backends)),
                escape(", ".join(m.pools)),
                count(m.context_length) if m.HasField("context_length") else "",
                escape(", ".join(m.capabilities)),
            )
            for m in models
        ),
        nothing="No models: no backend has told of one yet. See: forebay backend list",
    )


def _healthy(healthy: int, all_of_them: int) -> str:
    colour = "green" if healthy == all_of_them else "yellow" if healthy else "red"
    return f"[{colour}]{healthy} of {all_of_them}[/{colour}]"
