"""`forebay backend show`: everything that is known of one engine."""

from __future__ import annotations

import time

import click
from rich.markup import escape

from forebay.errors import NotFound
from forebay.wire.v1 import admin_pb2, lifecycle_pb2, registry_pb2
from forebay_admin.cli.backends.facts import MODEL_COLUMNS, engine_facts, model_row, place_facts
from forebay_admin.cli.backends.history import history_rows, plain_history, print_history
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain, word
from forebay_admin.cli.words import age, coloured


@click.command(short_help="Show one backend: how it is, how busy, and its models.")
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show what is known of the backend NAME. What its engine does not tell is left out.

    \b
    forebay backend show big-gpu

    With --json: {"backend": {"name", "health", "engine_version", "kv_tokens", "load", "models", …},
    "history": [{"at", "before", "after", "cause", "reason", …}], "drains", "maintenance"}
    """

    async def work(calls: Calls) -> tuple[registry_pb2.Backend, str, lifecycle_pb2.ShowHealthResponse]:
        known = await calls(calls.stub.ShowBackends, admin_pb2.ShowBackendsRequest())
        backend = next((b for b in known.backends if b.name == name), None)
        if backend is None:
            raise NotFound(f"There is no backend {name}; see: forebay backend list")
        nodes = (await calls(calls.stub.ShowNodes, admin_pb2.ShowNodesRequest())).nodes if backend.node_id else ()
        node = next((n.name for n in nodes if n.id == backend.node_id), backend.node_id)
        return backend, node, await calls(calls.stub.ShowBackendHealth, lifecycle_pb2.ShowHealthRequest(name=name))

    backend, node, history = ask(work)
    if as_json:
        print_json({"backend": plain(backend), **plain_history(history)})
        return
    now = time.time()
    health = coloured(word(backend, "health") or "unknown")
    rows = [
        ("Name", escape(backend.name)),
        ("URL", escape(backend.url)),
        ("Engine", word(backend, "kind") or "not known yet"),
        ("Pool", escape(backend.pool)),
        *place_facts(backend, node),
        ("Health", f"{health}: {escape(backend.health_reason)}" if backend.health_reason else health),
        ("Checked", age(backend.checked_at_us, now) if backend.HasField("checked_at_us") else "not yet"),
        ("Slots", f"up to {backend.slots}" if backend.slots_assumed else str(backend.slots)),
        *history_rows(history, now),
        *engine_facts(backend, now),
    ]
    print_table(("", ""), rows, nothing="")
    print_table(MODEL_COLUMNS, (model_row(model, now) for model in backend.models), nothing="No models yet.")
    if backend.missing_models:
        click.echo(f"Its pool requires what it does not have: {', '.join(backend.missing_models)}.")
    print_history(history, now)
