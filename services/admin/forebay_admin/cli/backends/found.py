"""`forebay backend found` and `adopt`: engines that nobody declared."""

from __future__ import annotations

import time

import click
from rich.markup import escape

from forebay.wire.v1 import discovery_pb2
from forebay_admin.cli.amounts import MOST_UINT32
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain, word
from forebay_admin.cli.words import age

_STANDINGS = {
    "suggested": "[yellow]suggested[/yellow]",
    "added": "[green]added by itself[/green]",
    "declared": "a backend",
    "turned_away": "turned away",
    "not_possible": "[red]not reachable[/red]",
}


@click.command(short_help="List engines that were found on nodes or in Kubernetes.")
@json_option
def found(as_json: bool) -> None:
    """List engines that agents found on their nodes, or that Kubernetes names. What is suggested becomes a backend with:
    forebay backend adopt NAME

    \b
    suggested         waits for somebody to adopt it
    added by itself   a backend that comes and goes with its engine
    a backend         somebody wants it, so discovery leaves it alone
    turned away       was added by itself and somebody removed it; it does not come back unless it is adopted
    not reachable     with the reason, and what to do about it

    With --json: {"found": [{"name", "found_by", "node", "url", "why_not", "engine", "standing", "gone_at"}],
    "nodes": [{"node", "policy", "pool", "addresses", "joined_from"}]}
    """

    async def work(calls: Calls) -> discovery_pb2.ListFoundBackendsResponse:
        return await calls(calls.stub.ShowFoundBackends, discovery_pb2.ListFoundBackendsRequest())

    answer = ask(work)
    if as_json:
        print_json(plain(answer))
        return
    now = time.time()
    print_table(
        ("Name", "Standing", "Engine", "Node", "GPUs", "URL"),
        (
            (
                escape(one.name),
                _standing(one, now),
                _engine(one),
                escape(one.node),
                _gpus(one),
                escape(one.url) or f"[dim]{escape(one.why_not)}[/dim]",
            )
            for one in answer.found
        ),
        nothing="No engines were found. Agents look on their nodes at the usual ports; see: forebay node list",
    )


@click.command(short_help="Make a backend of an engine that was found.")
@click.argument("name")
@click.option("--as", "as_name", default="", metavar="NAME", help="Under another name than the proposed one.")
@click.option("--pool", default="", metavar="NAME", help="The pool it belongs to. Default: its node's, else default.")
@click.option("--slots", type=click.IntRange(1, MOST_UINT32), metavar="N", help="Answers that it may write at once.")
@json_option
def adopt(name: str, as_name: str, pool: str, slots: int | None, as_json: bool) -> None:
    """Make a backend of the engine that was found as NAME (`forebay backend found` lists them). One that was added by itself
    is yours from then on: it does not change or go by itself any more.

    With --json: {"name", "url", "created"}
    """
    request = discovery_pb2.AdoptBackendRequest(name=name, as_name=as_name, pool=pool, slots=slots or 0)

    async def work(calls: Calls) -> discovery_pb2.AdoptBackendResponse:
        return await calls(calls.stub.AdoptBackend, request)

    adopted = ask(work)
    if as_json:
        print_json(plain(adopted))
        return
    what = "added" if adopted.created else "yours now: discovery leaves it alone"
    click.echo(f"Backend {adopted.name} ({adopted.url}) is {what}.")


def _standing(one: discovery_pb2.FoundBackend, now: float) -> str:
    told = _STANDINGS.get(word(one, "standing") or "", "")
    return f"{told}, gone {age(one.gone_at_us, now)}" if one.HasField("gone_at_us") else told


def _engine(one: discovery_pb2.FoundBackend) -> str:
    if not one.HasField("engine"):
        return escape(one.found_by)
    engine = one.engine
    told = [f"{word(engine, 'kind') or 'unknown'} {engine.version}".strip()]
    if engine.HasField("models"):
        told.append(f"{engine.models} model{'' if engine.models == 1 else 's'}")
    return escape(", ".join(told))


def _gpus(one: discovery_pb2.FoundBackend) -> str:
    if one.engine.gpu_indices:
        return ", ".join(str(index) for index in one.engine.gpu_indices)
    return "none" if one.HasField("engine") and one.engine.gpus_known else ""
