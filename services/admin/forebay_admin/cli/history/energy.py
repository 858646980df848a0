"""`forebay energy`: what was taken, by whom."""

from __future__ import annotations

import time

import click
from rich.markup import escape

from forebay.wire.v1 import history_pb2 as wire
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.history.points import watt_hours
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain
from forebay_admin.cli.spans import parse_span, span_options
from forebay_admin.cli.words import count, moment

_BY = {
    "node": wire.ENERGY_BY_NODE,
    "gpu": wire.ENERGY_BY_GPU,
    "backend": wire.ENERGY_BY_BACKEND,
    "model": wire.ENERGY_BY_MODEL,
    "group": wire.ENERGY_BY_GROUP,
}
_RESTS = {
    wire.ENERGY_REST_IDLE: "(backends that ran nothing)",
    wire.ENERGY_REST_ELSEWHERE: "(not for requests in the ledger)",
    wire.ENERGY_REST_NO_BACKEND: "(without a backend)",
}
_USUAL = "24h"


@click.command(short_help="Energy in Wh: by node, GPU, backend, model or group.")
@click.option("--by", type=click.Choice(tuple(_BY)), default="node", show_default=True, help="Whose.")
@span_options(_USUAL)
@json_option
def energy(by: str, last: str | None, since: str | None, until: str | None, as_json: bool) -> None:
    """What was taken, in whole hours: by GPUs from their own counters (else estimated from their power), by servers where
    the host tells. A server's is shared among its backends as the energy of its GPUs is, a backend's of each hour among
    models or groups by the tokens that the ledger has of it. What it took while it ran nothing is shown apart.

    \b
    forebay energy
    forebay energy --by model --last 7d
    forebay energy --by group --from 2026-11-01 --to 2026-12-01 --json

    With --json: {"from", "to", "sums": [{"name", "rest", "gpu_wh", "server_wh", "idle_wh", "tokens", "estimated",
    "gpu_only_wh"}]}, the largest first. `rest` is idle, elsewhere or no_backend for what belongs to nobody; `server_wh` is
    null where no host tells, and `gpu_only_wh` is what of `gpu_wh` no host's meter stands behind.
    """
    span = parse_span(last, since, until, time.time(), _USUAL)
    request = wire.ShowEnergyRequest(by=_BY[by], from_us=span.from_us, to_us=span.to_us)

    async def work(calls: Calls) -> wire.ShowEnergyResponse:
        return await calls(calls.stub.ShowEnergy, request)

    answer = ask(work)
    if as_json:
        print_json(plain(answer))
        return
    click.echo(f"{moment(answer.from_us)} to {moment(answer.to_us)}")
    divided = by in ("model", "group")
    print_table(
        (by.capitalize() if by != "gpu" else "GPU", "#GPU", "#Server", *_more_columns(by), ""),
        ((_name(s), watt_hours(s.gpu_wh), _server(s), *_more(s, by), _marks(s)) for s in answer.sums),
        nothing="No energy is known of that time: agents tell it, of nodes that have GPUs.",
    )
    if divided and any(s.rest == wire.ENERGY_REST_ELSEWHERE for s in answer.sums):
        click.echo(
            "What is not for requests in the ledger was asked of engines past Forebay, or ran on from an hour before."
        )


def _more_columns(by: str) -> tuple[str, ...]:
    return {"model": ("#Tokens",), "group": ("#Tokens",), "backend": ("#Idle",)}.get(by, ())


def _more(s: wire.EnergySum, by: str) -> tuple[str, ...]:
    if by == "backend":
        return (watt_hours(s.idle_wh),)
    return (count(s.tokens) if s.tokens else "",) if by in ("model", "group") else ()


def _name(s: wire.EnergySum) -> str:
    return _RESTS.get(s.rest) or escape(s.name) or "(unknown)"


def _server(s: wire.EnergySum) -> str:
    return watt_hours(s.server_wh) if s.HasField("server_wh") else ""


def _marks(s: wire.EnergySum) -> str:
    marks = []
    if s.gpu_only_wh >= 0.05:
        whole = not s.HasField("server_wh")
        marks.append("GPU only" if whole else f"{watt_hours(s.gpu_only_wh)} GPU only")
    if s.estimated:
        marks.append("estimated")
    return ", ".join(marks)
