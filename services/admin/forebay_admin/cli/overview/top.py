"""`forebay top`: a view of the whole that renews itself. What it shows is `top_picture`'s; in a terminal that takes keys,
the panes are `top_app`'s."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import click
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from forebay.errors import ForebayError, NotAllowed, NotAuthenticated, Unavailable
from forebay.wire.v1 import admin_pb2, alerts_pb2, registry_pb2, usage_pb2
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option
from forebay_admin.cli.overview.top_panes import Seen, seen
from forebay_admin.cli.overview.top_picture import (
    BACKEND_COLUMNS,
    GPU_COLUMNS,
    QUEUE_COLUMNS,
    backend_row,
    gpu_row,
    head,
    queue_row,
)
from forebay_admin.cli.queue.explain import CANDIDATE_COLUMNS, account, candidate_rows, why_there
from forebay_admin.fleet.picture import Picture, picture

T = TypeVar("T")

_FRAME = 3
"""Lines of a table that are no rows, and the empty one before it."""
_NARROW_BELOW = 100
_LEAST_ROWS = 2
_PIPE_WIDTH, _PIPE_HEIGHT = 160, 1_000
_LATEST = 20


@click.command(short_help="Queue, backends, GPUs and tokens a second, as they change.")
@click.option("--every", type=click.FloatRange(0.5, 60.0), default=2.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Show it once and end.")
@json_option
def top(every: float, once: bool, as_json: bool) -> None:
    """Who waits, how full backends and GPUs are, and how many tokens a second are read and written; q or Ctrl-C ends it.
    Where nobody watches (a pipe, a file) each look is printed below the one before.

    \b
    d   drain the backend that is selected, or let it take requests again
    e   explain a request
    /   show only rows with some words
    ?   all keys

    \b
    forebay top
    forebay top --once
    forebay top --json | jq -c '{at, waiting, writes: .completion_tokens_per_s}'

    With --json: one object a line, {"at", "running", "waiting", "slots", "gateways", "prompt_tokens_per_s",
    "completion_tokens_per_s", "serving", "alerts", "backends": [{"name", "pool", "health", "held", "cap", "running",
    "waiting", "kv_used_fraction", …}], "gpus": [{"node", "index", "name", "utilization_percent", …}], "queue": [{"user",
    "pool", "model", "band", "requests", "oldest_ms"}], "unknown"}
    """
    with suppress(KeyboardInterrupt):
        ask(lambda calls: _run(calls, every, once=once, as_json=as_json))


async def _run(calls: Calls, every: float, *, once: bool, as_json: bool) -> None:
    if as_json:
        while True:
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            click.echo(json.dumps({"at": now, **(await look(calls)).plain()}, ensure_ascii=False))
            if once:
                return
            await asyncio.sleep(every)
    console = Console(highlight=False)
    if once or not console.is_terminal:
        plain = console if console.is_terminal else Console(highlight=False, width=_PIPE_WIDTH, height=_PIPE_HEIGHT)
        while True:
            plain.print(render(await look(calls), plain.width, _PIPE_HEIGHT, time.strftime("%H:%M:%S")))
            if once:
                return
            await asyncio.sleep(every)
    if sys.stdin.isatty():
        await _in_panes(calls, every)
        return
    first = await look(calls)  # what is wrong at once is said as by any other command

    def draw(seen: Picture) -> RenderableType:
        return render(seen, console.width, console.height, time.strftime("%H:%M:%S"))

    with Live(draw(first), console=console, screen=True, auto_refresh=False) as live:
        while True:
            await asyncio.sleep(every)
            live.update(draw(await look(calls)), refresh=True)


async def _in_panes(calls: Calls, every: float) -> None:
    from forebay_admin.cli.overview.top_app import TopApp  # only here: it takes long to load

    fleet = _Fleet(calls)
    app = TopApp(fleet, await fleet.look(), every)
    await app.run_async()
    if app.failure is not None:
        raise app.failure


class _Fleet:
    """What the panes ask and do."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def look(self) -> Seen:
        asked, requests = await asyncio.gather(_ask_all(self._calls), self._latest())
        return seen(_picture_of(asked), asked.queue, asked.backends, asked.nodes, requests)

    async def drain(self, backend: str, reason: str, *, undo: bool) -> str:
        request = admin_pb2.DrainBackendRequest(name=backend, reason=reason, undo=undo)
        done = await self._calls(self._calls.stub.DrainBackend, request)
        if undo:
            return f"{done.name} takes requests again as soon as it is found to be well."
        if done.running_unknown:
            return f"{done.name} gets nothing new; how much runs there no scheduler tells."
        return f"{done.name} gets nothing new; " + (
            f"{done.running} run there." if done.running else "nothing runs there."
        )

    async def explain(self, request_id: str) -> Sequence[RenderableType]:
        request = admin_pb2.ViewExplanationRequest(request_id=request_id)
        told = await self._calls(self._calls.stub.ViewExplanation, request)
        shown: list[RenderableType] = []
        for one in told.explanations:
            shown.append(Text("\n".join(account(one, told.names))))
            for attempt in one.attempts:
                if attempt.candidates:
                    rows = list(candidate_rows(attempt, told.names))
                    shown.append(Text(f"\n{why_there(attempt, told.names)}"))
                    shown.append(_table(CANDIDATE_COLUMNS, rows, len(rows), narrow=False))
        return shown

    async def _latest(self) -> Sequence[usage_pb2.UsageRecord]:
        """None where they cannot be asked: the others are what one looks for."""
        request = admin_pb2.ShowUsageRequest(rows=True, limit=_LATEST)
        try:
            return (await self._calls(self._calls.stub.ShowUsage, request)).rows
        except ForebayError:
            return ()


@dataclass(frozen=True, slots=True)
class _Answers:
    queue: admin_pb2.ViewQueueResponse | None
    backends: Sequence[registry_pb2.Backend] | None
    nodes: Sequence[registry_pb2.Node] | None
    alerts: Sequence[alerts_pb2.Alert] | None
    unknown: dict[str, None]
    """Why what is None is: sentences, each once."""


async def look(calls: Calls) -> Picture:
    """As of now; of what does not answer, the picture says so. Raises what says that we may not ask at all, and Unavailable
    when nobody answers."""
    return _picture_of(await _ask_all(calls))


def _picture_of(asked: _Answers) -> Picture:
    return picture(asked.queue, asked.backends, asked.nodes, asked.alerts, asked.unknown)


async def _ask_all(calls: Calls) -> _Answers:
    unknown: list[str] = []
    queue, backends, nodes, alerts = await asyncio.gather(
        _maybe(calls(calls.stub.ViewQueue, admin_pb2.ViewQueueRequest()), unknown),
        _maybe(calls(calls.stub.ShowBackends, admin_pb2.ShowBackendsRequest()), unknown),
        _maybe(calls(calls.stub.ShowNodes, admin_pb2.ShowNodesRequest()), unknown),
        _maybe(calls(calls.stub.ListAlerts, alerts_pb2.ListAlertsRequest()), unknown),
    )
    if queue is None and backends is None and nodes is None and alerts is None:
        raise Unavailable(unknown[0])
    return _Answers(
        queue,
        backends.backends if backends is not None else None,
        nodes.nodes if nodes is not None else None,
        alerts.alerts if alerts is not None else None,
        dict.fromkeys(unknown),
    )


def render(seen: Picture, width: int, height: int, clock: str) -> RenderableType:
    """In so many columns and lines: tables share the lines, and each says how many rows it left out."""
    narrow = width < _NARROW_BELOW
    title = Text.from_markup(f"[dim]{clock}[/dim]  {head(seen)}")
    unknown = [Text.from_markup(f"[yellow]{escape(why)}[/yellow]", overflow="ellipsis") for why in seen.unknown]
    tables: list[tuple[Sequence[str], list[tuple[str, ...]]]] = [
        (QUEUE_COLUMNS, [queue_row(q) for q in seen.queue]),
        (BACKEND_COLUMNS, [backend_row(b, narrow=narrow) for b in seen.backends]),
        (GPU_COLUMNS, [gpu_row(g, narrow=narrow) for g in seen.gpus]),
    ]
    tables = [(columns, rows) for columns, rows in tables if rows]
    taken = -(-len(title) // max(1, width)) + 1 + len(unknown)  # a line of the title may break anywhere
    shares = _share([len(rows) for _, rows in tables], height - taken - _FRAME * len(tables))
    lines: list[RenderableType] = [title, *unknown]
    for (columns, rows), most in zip(tables, shares, strict=True):
        lines += [Text(), _table(columns, rows, most, narrow=narrow)]
    if not tables:
        lines.append(Text("\nNo backends, and nobody waits. Add a backend with: forebay backend add NAME URL"))
    return Group(*lines)


def _table(columns: Sequence[str], rows: Sequence[tuple[str, ...]], most: int, *, narrow: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    kept = [index for index, column in enumerate(columns) if not (narrow and column.endswith("?"))]
    for index in kept:
        name = columns[index]
        table.add_column(
            name.strip("#?"),
            justify="right" if name.startswith("#") else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    shown = rows if len(rows) <= most else rows[: max(1, most - 1)]
    for row in shown:
        table.add_row(*(row[index] for index in kept))
    if len(shown) < len(rows):
        table.add_row(f"[dim]and {len(rows) - len(shown)} more[/dim]")
    return table


def _share(wanted: Sequence[int], room: int) -> list[int]:
    """How many rows each gets: all, where there is room; else as many as the others, and what the small ones leave."""
    shares = [min(rows, _LEAST_ROWS) for rows in wanted]
    left = room - sum(shares)
    while left > 0:
        wanting = [i for i, rows in enumerate(wanted) if shares[i] < rows]
        if not wanting:
            break
        for i in wanting[:left]:
            shares[i] += 1
        left -= len(wanting)
    return shares


async def _maybe(asked: Awaitable[T], unknown: list[str]) -> T | None:
    try:
        return await asked
    except (NotAuthenticated, NotAllowed):
        raise
    except ForebayError as error:
        unknown.append(error.message)
        return None
