"""`forebay node set`: what operators say of one node."""

from __future__ import annotations

import click

from forebay.wire.v1 import fleet_parts_pb2 as wire
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.fleet.parts import base_option, label_option, parse_labels, reset_option, tell
from forebay_admin.cli.output import json_option


@click.command("set", short_help="Change the labels and the note of a node.")
@click.argument("name")
@label_option
@click.option("--note", metavar="TEXT", help="A note for people.")
@reset_option("note, labels or labels.rack")
@base_option
@json_option
def set_node(
    name: str,
    labels: tuple[str, ...],
    note: str | None,
    reset: tuple[str, ...],
    base_version: int | None,
    as_json: bool,
) -> None:
    """Change what is said of the node NAME. What is not named stays as it is; what is reset is gone.

    \b
    forebay node set gpu-box-1 --label rack=a --note "fans replaced in May"
    forebay node set gpu-box-1 --reset labels.rack

    With --json: {"node": {"name", "labels", "note"}, "version", "changes": [{"kind", "name", "what", "fields"}]}
    """
    request = wire.ChangeNodeRequest(
        name=name, labels=parse_labels(labels), note=note, reset=reset, base_version=base_version
    )

    async def work(calls: Calls) -> wire.ChangeNodeResponse:
        return await calls(calls.stub.ChangeNode, request)

    answer = ask(work)
    tell(answer, "node", answer.node, as_json=as_json)
