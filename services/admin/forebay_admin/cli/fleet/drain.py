"""`forebay drain`, `forebay backend drain|undrain` and `forebay node drain|undrain`: let engines run empty, so that they
can be stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

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

F = TypeVar("F", bound=Callable[..., Any])

Drained = admin_pb2.DrainBackendResponse


def _draining_options(command: F) -> F:
    for option in (
        click.option("--wait", is_flag=True, help="Return when nothing runs there any more."),
        click.option("--reason", default="", metavar="TEXT", help="For those who wonder: one line."),
        click.option("--force", is_flag=True, help="What still runs at the deadline is ended, with an error."),
        click.option(
            "--deadline",
            metavar="TIME",
            help="When it is over, what has no first token yet is placed elsewhere: 90s, 10m. Default: all may finish.",
        ),
    ):
        command = option(command)
    return command


@click.command(short_help="Let a backend run empty.")
@click.argument("backend")
@_draining_options
@click.option("--undo", is_flag=True, help="It gets requests again.")
@json_option
def drain(backend: str, deadline: str | None, force: bool, reason: str, wait: bool, undo: bool, as_json: bool) -> None:
    """Send nothing new to the backend BACKEND; what runs there goes on. It stays so, over restarts too, until --undo.
    The same as `forebay backend drain` and `forebay backend undrain`.

    \b
    forebay drain big-gpu --deadline 10m --wait && ssh big-gpu systemctl restart vllm
    forebay drain big-gpu --undo

    With --json: {"backend_id", "name", "running", "drained", "running_unknown"}
    """
    if undo and (deadline or wait or force):
        raise BadInput("--undo goes with neither --deadline nor --force nor --wait.")
    if undo:
        _lift_backend(backend, as_json)
    else:
        _drain_backend(backend, deadline, force, reason, wait, as_json)


@click.command("drain", short_help="Let a backend run empty.")
@click.argument("name")
@_draining_options
@json_option
def drain_backend(name: str, deadline: str | None, force: bool, reason: str, wait: bool, as_json: bool) -> None:
    """Send nothing new to the backend NAME; what runs there goes on. It is `draining` until nothing runs there, then
    `drained`, and stays so, over restarts of everything, until `forebay backend undrain NAME`.

    \b
    forebay backend drain big-gpu --reason "new driver" --wait
    forebay backend drain big-gpu --deadline 10m --force --wait

    With --json: {"backend_id", "name", "running", "drained", "running_unknown"}
    """
    _drain_backend(name, deadline, force, reason, wait, as_json)


@click.command("undrain", short_help="Let a backend get requests again.")
@click.argument("name")
@json_option
def undrain_backend(name: str, as_json: bool) -> None:
    """Let the backend NAME get requests again, as soon as it is found to be well.

    With --json: {"backend_id", "name", …}
    """
    _lift_backend(name, as_json)


@click.command("drain", short_help="Let all backends of a node run empty.")
@click.argument("node")
@_draining_options
@json_option
def drain_node(node: str, deadline: str | None, force: bool, reason: str, wait: bool, as_json: bool) -> None:
    """Send nothing new to any backend on the node NODE, also to those that are added to it later, until
    `forebay node undrain NODE`.

    \b
    forebay node drain gpu-box-1 --deadline 5m --force --wait && ssh gpu-box-1 reboot

    With --json: a list of {"backend_id", "name", "running", "drained", "running_unknown"}
    """
    request = admin_pb2.DrainNodeRequest(node=node, deadline_s=_seconds(deadline), force=force, reason=reason)
    began = time.monotonic()

    async def work(calls: Calls) -> Sequence[Drained]:
        return await _waited(calls, (await calls(calls.stub.DrainNode, request)).backends, wait, as_json)

    drained = ask(work)
    if as_json:
        print_json([plain(one) for one in drained])
        return
    if not drained:
        click.echo(f"Nothing is sent to the node {node}; it has no backends.")
    for one in drained:
        click.echo(_told(one, time.monotonic() - began if wait else None))


@click.command("undrain", short_help="Let the backends of a node get requests again.")
@click.argument("node")
@json_option
def undrain_node(node: str, as_json: bool) -> None:
    """Let the backends on the node NODE get requests again. One that is drained by its own name stays so.

    With --json: a list of {"backend_id", "name", …}
    """
    request = admin_pb2.DrainNodeRequest(node=node, undo=True)

    async def work(calls: Calls) -> admin_pb2.DrainNodeResponse:
        return await calls(calls.stub.DrainNode, request)

    lifted = ask(work).backends
    if as_json:
        print_json([plain(one) for one in lifted])
        return
    names = ", ".join(one.name for one in lifted)
    click.echo(f"The node {node} gets requests again{f': {names}' if names else ''}.")


def _drain_backend(name: str, deadline: str | None, force: bool, reason: str, wait: bool, as_json: bool) -> None:
    request = admin_pb2.DrainBackendRequest(name=name, deadline_s=_seconds(deadline), force=force, reason=reason)
    began = time.monotonic()

    async def work(calls: Calls) -> Sequence[Drained]:
        return await _waited(calls, [await calls(calls.stub.DrainBackend, request)], wait, as_json)

    (answer,) = ask(work)
    if as_json:
        print_json(plain(answer))
    else:
        click.echo(_told(answer, time.monotonic() - began if wait else None))


def _lift_backend(name: str, as_json: bool) -> None:
    request = admin_pb2.DrainBackendRequest(name=name, undo=True)

    async def work(calls: Calls) -> Drained:
        return await calls(calls.stub.DrainBackend, request)

    answer = ask(work)
    if as_json:
        print_json(plain(answer))
    else:
        click.echo(f"Backend {answer.name} gets requests again.")


def _seconds(deadline: str | None) -> int:
    """Raises BadInput."""
    seconds = round(parse_duration(deadline).total_seconds()) if deadline else 0
    if deadline and not seconds:
        raise BadInput("A deadline is at least a second away.")
    return seconds


def _told(answer: Drained, waited_s: float | None) -> str:
    if answer.drained:
        after = f" after {span(waited_s)}" if waited_s is not None else ""
        return f"Backend {answer.name} is drained{after}: nothing runs there, nothing new is sent."
    if answer.running_unknown:
        return (
            f"Backend {answer.name} gets nothing new; how much still runs there, no scheduler told. See: forebay queue"
        )
    # With what gateways were lent ahead, which the scheduler has only begun to call back.
    return f"Backend {answer.name} gets nothing new; {answer.running} slots are still held there. See: forebay queue"


async def _waited(calls: Calls, answers: Sequence[Drained], wait: bool, as_json: bool) -> Sequence[Drained]:
    """The same; with `wait`, when nothing is held there. Raises Unavailable when nobody has answered for a while."""
    waiting = {answer.backend_id: answer for answer in answers if wait and not answer.drained}
    for answer in waiting.values():
        if not as_json:
            click.echo(f"{answer.running} running on {answer.name}; waiting …", err=True)
    heard = time.monotonic()
    while waiting:
        await asyncio.sleep(_LOOK_S)
        try:
            queue = (await calls(calls.stub.ViewQueue, admin_pb2.ViewQueueRequest())).queue
        except Unavailable:
            if time.monotonic() - heard > _AWAY_S:
                raise
            continue
        heard = time.monotonic()
        busy = {held.backend_id for held in queue.held if held.held or held.quarantined}
        for backend_id in waiting.keys() - busy:
            answer = waiting.pop(backend_id)
            answer.running, answer.drained, answer.running_unknown = 0, True, False
    return answers
