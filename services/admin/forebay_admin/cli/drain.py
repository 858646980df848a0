"""`forebay drain`: let a backend run empty, so that its engine can be stopped."""

from __future__ import annotations

import asyncio
import time

import click

from forebay.errors import BadInput, Unavailable
from forebay.wire.v1 import admin_pb2
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json
from forebay_admin.cli.plain import plain
from forebay_admin.cli.words import parse_duration, span

_LOOK_S = 0.5
_AWAY_S = 30.0
"""How long nobody may answer while we wait; a new leader is there long before."""


@click.command(short_help="Let a backend run empty.")
@click.argument("backend")
@click.option(
    "--deadline",
    metavar="TIME",
    help="When it is over, what has no first token yet is placed elsewhere: 90s, 10m. Default: all may finish.",
)
@click.option("--undo", is_flag=True, help="It gets requests again.")
@click.option("--wait", is_flag=True, help="Return when nothing runs there any more.")
@json_option
def drain(backend: str, deadline: str | None, undo: bool, wait: bool, as_json: bool) -> None:
    """Send nothing new to the backend BACKEND; what runs there goes on. It stays so, over restarts too, until --undo.

    \b
    forebay drain big-gpu --deadline 10m --wait && ssh big-gpu systemctl restart vllm
    forebay drain big-gpu --undo

    With --json: {"backend_id", "name", "running", "drained"}
    """
    if undo and (deadline or wait):
        raise BadInput("--undo goes with neither --deadline nor --wait.")
    deadline_s = round(parse_duration(deadline).total_seconds()) if deadline else 0
    if deadline and not deadline_s:
        raise BadInput("A deadline is at least a second away.")
    request = admin_pb2.DrainBackendRequest(name=backend, deadline_s=deadline_s, undo=undo)

    async def work(calls: Calls) -> admin_pb2.DrainBackendResponse:
        answer = await calls(calls.stub.DrainBackend, request)
        if wait and not answer.drained:
            if not as_json:
                click.echo(f"{answer.running} running on {answer.name}; waiting …", err=True)
            await _until_empty(calls, answer.backend_id)
            answer.running, answer.drained = 0, True
        return answer

    began = time.monotonic()
    answer = ask(work)
    if as_json:
        print_json(plain(answer))
    elif undo:
        click.echo(f"Backend {answer.name} gets requests again.")
    elif answer.drained:
        after = f" after {span(time.monotonic() - began)}" if wait else ""
        click.echo(f"Backend {answer.name} is drained{after}: nothing runs there, nothing new is sent.")
    else:
        click.echo(f"Backend {answer.name} gets nothing new; {answer.running} still running. See: forebay queue")


async def _until_empty(calls: Calls, backend_id: str) -> None:
    """Returns when nothing is held there. Raises Unavailable when nobody has answered for a while."""
    heard = time.monotonic()
    while True:
        await asyncio.sleep(_LOOK_S)
        try:
            queue = (await calls(calls.stub.ViewQueue, admin_pb2.ViewQueueRequest())).queue
        except Unavailable:
            if time.monotonic() - heard > _AWAY_S:
                raise
            continue
        heard = time.monotonic()
        held = [h for h in queue.held if h.backend_id == backend_id]
        if not any(h.held or h.quarantined for h in held):
            return
