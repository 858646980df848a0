"""`forebay maintenance`: times in which backends are kept empty, and nobody is woken about them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime

import click
from rich.markup import escape

from forebay.errors import BadInput
from forebay.wire.v1 import lifecycle_pb2
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain, word
from forebay_admin.cli.words import ahead, coloured, parse_duration, span

Window = lifecycle_pb2.MaintenanceWindow


@click.group(short_help="Maintenance: times in which backends are kept empty.")
def maintenance() -> None:
    """Maintenance windows. In one, nothing new is sent to its backends, and that they do not answer alerts nobody. After it
    they come back when they are found to be well.

    \b
    forebay maintenance add --node gpu-box-1 --from 2026-12-01T22:00 --to 2026-12-01T23:30 --drain-before 10m
    forebay maintenance add --backend big-gpu --from now --to +2h --reason "new driver"
    forebay maintenance list
    forebay maintenance remove mw-1a2b3c4d
    """


@maintenance.command(short_help="Announce a window.")
@click.option("--backend", metavar="NAME", help="Of this backend.")
@click.option("--node", metavar="NAME", help="Of every backend on this node.")
@click.option("--pool", metavar="NAME", help="Of every backend in this pool.")
@click.option("--from", "begins", metavar="WHEN", default="now", show_default=True, help="now, +30m, 2026-12-01T22:00.")
@click.option("--to", "ends", metavar="WHEN", required=True, help="+2h (after its beginning), 2026-12-01T23:30.")
@click.option(
    "--drain-before",
    metavar="TIME",
    help="From so long before nothing new is sent there, and what still runs at the beginning is ended. Default: it drains "
    "from the beginning on, and all may finish.",
)
@click.option("--reason", default="", metavar="TEXT", help="For those who wonder: one line.")
@json_option
def add(
    backend: str | None,
    node: str | None,
    pool: str | None,
    begins: str,
    ends: str,
    drain_before: str | None,
    reason: str,
    as_json: bool,
) -> None:
    """Announce a maintenance window of a backend, of all on a node, or of a pool. Times without a zone are this machine's.

    With --json: {"id", "scope", "name", "begins_at", "ends_at", "drain_before_s", "reason", "by", "added_at"}
    """
    scope, name = _subject(backend=backend, node=node, pool=pool)
    now = time.time()
    begins_at = parse_moment(begins, now)
    window = Window(
        scope=scope,
        name=name,
        begins_at_us=round(begins_at * 1_000_000),
        ends_at_us=round(parse_moment(ends, begins_at) * 1_000_000),
        drain_before_s=round(parse_duration(drain_before).total_seconds()) if drain_before else 0,
        reason=reason,
    )

    async def work(calls: Calls) -> lifecycle_pb2.AddMaintenanceResponse:
        return await calls(calls.stub.ScheduleMaintenance, lifecycle_pb2.AddMaintenanceRequest(window=window))

    added = ask(work).window
    if as_json:
        print_json(plain(added))
        return
    click.echo(f"Maintenance {added.id} of {_whose(added)}: {_span_of(added)}.")


@maintenance.command("list")
@json_option
def list_windows(as_json: bool) -> None:
    """List maintenance windows; those that are over stay in the list for a day.

    With --json: a list of {"id", "scope", "name", "begins_at", "ends_at", "drain_before_s", "reason", "by", "added_at"}
    """

    async def work(calls: Calls) -> lifecycle_pb2.ListMaintenanceResponse:
        return await calls(calls.stub.ShowMaintenance, lifecycle_pb2.ListMaintenanceRequest())

    windows = ask(work).windows
    if as_json:
        print_json([plain(window) for window in windows])
        return
    print_windows(windows, time.time(), nothing="No maintenance is planned. Plan some with: forebay maintenance add")


@maintenance.command()
@click.argument("id")
@json_option
def remove(id: str, as_json: bool) -> None:
    """Forget the maintenance window ID; if it is open, its backends get requests again as soon as they are well.

    With --json: {"id", "scope", "name", …}, as it was
    """

    async def work(calls: Calls) -> lifecycle_pb2.RemoveMaintenanceResponse:
        return await calls(calls.stub.CancelMaintenance, lifecycle_pb2.RemoveMaintenanceRequest(id=id))

    gone = ask(work).window
    if as_json:
        print_json(plain(gone))
        return
    click.echo(f"Maintenance {gone.id} of {_whose(gone)} is removed.")


def print_windows(windows: Iterable[Window], now: float, *, nothing: str) -> None:
    print_table(
        ("Id", "Of", "When", "Drains", "State", "By", "Reason"),
        (
            (
                w.id,
                escape(_whose(w)),
                _span_of(w),
                f"{span(w.drain_before_s)} before" if w.drain_before_s else "from the beginning",
                _state(w, now),
                escape(w.by),
                escape(w.reason),
            )
            for w in windows
        ),
        nothing=nothing,
    )


def parse_moment(text: str, base: float) -> float:
    """`now`, `+30m` after `base`, or ISO 8601, by this machine's zone where it names none; in seconds since the epoch.
    Raises BadInput."""
    told = text.strip()
    if told == "now":
        return base
    if told.startswith("+"):
        return base + parse_duration(told[1:]).total_seconds()
    try:
        return datetime.fromisoformat(told).astimezone().timestamp()
    except (ValueError, OverflowError) as error:
        raise BadInput(f"{text!r} is not a time: write now, +30m, 2026-12-01T22:00 or 2026-12-01T22:00Z.") from error


def _subject(
    *, backend: str | None, node: str | None, pool: str | None
) -> tuple[lifecycle_pb2.LifecycleScope.ValueType, str]:
    named = [
        (scope, name)
        for scope, name in (
            (lifecycle_pb2.LIFECYCLE_SCOPE_BACKEND, backend),
            (lifecycle_pb2.LIFECYCLE_SCOPE_NODE, node),
            (lifecycle_pb2.LIFECYCLE_SCOPE_POOL, pool),
        )
        if name
    ]
    if len(named) != 1:
        raise BadInput("Say whose maintenance it is, with one of --backend, --node and --pool.")
    return named[0]


def _whose(window: Window) -> str:
    return f"{word(window, 'scope')} {window.name}"


def _span_of(window: Window) -> str:
    begins, ends = (datetime.fromtimestamp(us / 1_000_000) for us in (window.begins_at_us, window.ends_at_us))
    last = ends.strftime("%H:%M" if ends.date() == begins.date() else "%Y-%m-%d %H:%M")
    return f"{begins:%Y-%m-%d %H:%M} to {last}"


def _state(window: Window, now: float) -> str:
    begins, ends = window.begins_at_us / 1_000_000, window.ends_at_us / 1_000_000
    if now >= ends:
        return "over"
    if now >= begins:
        return coloured("open")
    return "draining" if now >= begins - window.drain_before_s else ahead(window.begins_at_us, now)
