"""`forebay status`: how the whole is, for people and for scripts."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

import click
from rich.console import Console
from rich.markup import escape

from forebay.errors import ForebayError, Unavailable
from forebay.wire.v1 import status_pb2 as wire
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.overview.alert import COLUMNS, alert_row
from forebay_admin.cli.plain import plain, word
from forebay_admin.cli.words import age, coloured

_MOST_WELL = 6
"""Of a kind, that are listed by name while all is well with them."""
_EXITS = {wire.OVERALL_STATE_OK: 0, wire.OVERALL_STATE_DEGRADED: 1}
_DOWN = 2


@click.command(short_help="How every part is; exit status 0 well, 1 degraded, 2 down.")
@click.option("--all", "everything", is_flag=True, help="List all that is well, too, however much it is.")
@json_option
def status(everything: bool, as_json: bool) -> None:
    """How gateways, schedulers, registries, admin, Postgres, NATS, agents, backends and webhooks are, each since when and
    with what to do; models that nobody can give now; and open alerts.

    The exit status is 0 when all is well, 1 when requests are served and something is to be looked after, and 2 when none is
    served, or admin cannot be asked.

    \b
    forebay status || echo "somebody has to look"
    forebay status --json | jq '.parts[] | select(.state != "ok")'

    With --json: {"state": "ok"|"degraded"|"down", "summary", "parts": [{"kind", "name", "state", "since", "detail", "todo",
    "word"}], "alerts": […], "at", "version"}
    """

    async def work(calls: Calls) -> wire.ShowStatusResponse:
        return await calls(calls.stub.ShowStatus, wire.ShowStatusRequest())

    try:
        told = ask(work)
    except Unavailable as error:
        told = wire.ShowStatusResponse(
            state=wire.OVERALL_STATE_DOWN,
            summary=error.message,
            parts=[wire.StatusPart(kind="admin", state=wire.PART_STATE_DOWN, word="away", detail=error.message)],
            at_us=round(time.time() * 1_000_000),
        )
    except ForebayError as error:
        click.echo(f"Error: {error.message}", err=True)
        sys.exit(_DOWN)  # 1 would say that requests are served
    if as_json:
        print_json(plain(told))
    else:
        _print(told, time.time(), everything=everything)
    sys.exit(_EXITS.get(told.state, _DOWN))


def _print(told: wire.ShowStatusResponse, now: float, *, everything: bool) -> None:
    Console(highlight=False, soft_wrap=True).print(
        f"[bold]{coloured(word(told, 'state') or 'unknown')}[/bold]  {escape(told.summary)}"
    )
    print_table(("Part", "Name", "State", "Since", ""), _rows(told.parts, now, everything), nothing="")
    if told.alerts:
        print_table(COLUMNS, (alert_row(one, now) for one in told.alerts), nothing="")


def _rows(parts: Sequence[wire.StatusPart], now: float, everything: bool) -> Iterator[tuple[str, ...]]:
    for kind, group in groupby(parts, key=lambda part: part.kind):
        of_kind = list(group)
        well = [part for part in of_kind if part.state in (wire.PART_STATE_OK, wire.PART_STATE_STANDBY)]
        if not everything and len(well) > _MOST_WELL:
            words = Counter(part.word for part in well)
            told = ", ".join(f"{number} {coloured(name)}" for name, number in words.most_common())
            yield kind, f"{len(well)} of {len(of_kind)}", told, "", ""
            of_kind = [part for part in of_kind if part not in well]
        for part in of_kind:
            yield _row(part, now)


def _row(part: wire.StatusPart, now: float) -> tuple[str, ...]:
    colour = _COLOURS.get(part.state, "yellow")
    said = [escape(part.detail)] if part.detail else []
    said += [f"[dim]{escape(part.todo)}[/dim]"] if part.todo else []
    return (
        part.kind,
        escape(part.name),
        f"[{colour}]{escape(part.word)}[/{colour}]",
        age(part.since_us, now) if part.HasField("since_us") else "",
        "\n".join(said),
    )


_COLOURS = {
    wire.PART_STATE_OK: "green",
    wire.PART_STATE_STANDBY: "green",
    wire.PART_STATE_DOWN: "red",
}
