"""`forebay history`: how nodes, GPUs, backends and models were."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack

import click

from forebay.wire.v1 import history_pb2 as wire
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.history.files import open_writer
from forebay_admin.cli.history.points import (
    amount,
    over_all,
    plain_point,
    sparkline,
    total,
    watt_hours,
    with_gaps,
)
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.spans import RESOLUTIONS, parse_resolution, parse_span, span_options
from forebay_admin.cli.words import count, moment
from forebay_admin.fleet.history_files import FORMATS, Writer
from forebay_admin.fleet.history_rows import STATISTICS, Point, pages_of, points_of, rows_of

KINDS = {
    "node": wire.SERIES_KIND_NODE,
    "gpu": wire.SERIES_KIND_GPU,
    "backend": wire.SERIES_KIND_BACKEND,
    "model": wire.SERIES_KIND_MODEL,
}
_USUAL = "6h"
_WIDTH = 60
"""Of a small picture, in characters."""

_resolution = click.option(
    "--resolution", type=click.Choice(tuple(RESOLUTIONS)), help="Of the points. Default: what suits the span."
)
_zone = click.option(
    "--time-zone", "zone", default="", metavar="ZONE", help="Whose days they are, with 1d: Europe/Berlin."
)


@click.group(short_help="How nodes, GPUs, backends and models were.")
def history() -> None:
    """How nodes, GPUs, backends and models were: min, mean and max of each minute for two weeks, of each hour for a year.

    \b
    forebay history list gpu
    forebay history gpu gpu-box-1/0 --last 6h
    forebay history backend vllm-1 --metric running --from 2026-11-30T08:00Z --to 2026-11-30T12:00Z
    forebay history export --kind gpu --last 30d --resolution 1h --format parquet -o gpus.parquet
    """


@history.command("list")
@click.argument("kind", type=click.Choice(tuple(KINDS)))
@json_option
def list_series(kind: str, as_json: bool) -> None:
    """List what has a history, those that are gone among them, and which of its numbers are kept.

    With --json: {"names": […], "metrics": […]}
    """

    async def work(calls: Calls) -> wire.ListSeriesResponse:
        return await calls(calls.stub.ShowSeries, wire.ListSeriesRequest(kind=KINDS[kind]))

    found = ask(work)
    if as_json:
        print_json({"names": list(found.names), "metrics": list(found.metrics)})
        return
    click.echo("\n".join(found.names) or f"No {kind} has a history yet: it begins with the first full minute.")
    click.echo(f"\nMetrics: {', '.join(found.metrics)}")


def _show(kind: str, about: str) -> None:
    @history.command(kind, help=about, short_help=f"How a {kind if kind != 'gpu' else 'GPU'} was.")
    @click.argument("name")
    @span_options(_USUAL)
    @_resolution
    @_zone
    @click.option(
        "--metric", "metrics", multiple=True, metavar="NAME", help="Only this; one alone is shown point by point."
    )
    @json_option
    def show(
        name: str,
        last: str | None,
        since: str | None,
        until: str | None,
        resolution: str | None,
        zone: str,
        metrics: tuple[str, ...],
        as_json: bool,
    ) -> None:
        span = parse_span(last, since, until, time.time(), _USUAL)
        request = wire.ReadHistoryRequest(
            kind=KINDS[kind],
            names=[name],
            from_us=span.from_us,
            to_us=span.to_us,
            resolution_s=parse_resolution(resolution),
            time_zone=zone,
            metrics=metrics,
        )
        found = ask(lambda calls: _collect(calls, request))
        if as_json:
            print_json([shown.plain(kind) for shown in found])
            return
        for shown in found:
            shown.print(kind, one_metric=len(metrics) == 1)


_FIELDS = """

    With --json: a list (of several where another has the name since) of {"kind", "name", "id", "resolution_s", "points":
    [{"at", METRIC: {"min", "mean", "max", "last", "samples"}, "energy": {"gpu_wh", "server_wh", "idle_wh", "measured_s",
    "estimated"}}]}; null where nothing was told.
    """
_show("node", "Show how the node NAME was: its host, and the energy of its GPUs and of the whole machine." + _FIELDS)
_show("gpu", "Show how a GPU was; NAME is the node's with the GPU's number, such as gpu-box-1/0." + _FIELDS)
_show("backend", "Show how the backend NAME was: what ran and waited there, its cache, and its GPUs' energy." + _FIELDS)
_show(
    "model",
    "Show how the model NAME was: how many backends had it, and what ran on those that have no other." + _FIELDS,
)


@history.command()
@click.option("--kind", type=click.Choice(tuple(KINDS)), required=True, help="Of what.")
@click.option("--name", "names", multiple=True, metavar="NAME", help="Only this one; may be given again. Default: all.")
@span_options("24h")
@_resolution
@_zone
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Only this; may be given again. Default: all.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="csv", show_default=True, help="Of the file.")
@click.option("-o", "--output", "path", default="-", metavar="FILE", help="Where to. Default: standard output.")
def export(
    kind: str,
    names: tuple[str, ...],
    last: str | None,
    since: str | None,
    until: str | None,
    resolution: str | None,
    zone: str,
    metrics: tuple[str, ...],
    form: str,
    path: str,
) -> None:
    """Write history into a file: a row for each series and time, the columns METRIC_min, METRIC_mean, METRIC_max,
    METRIC_last, METRIC_samples and energy_…. Times are ISO 8601 in UTC. A time at which nothing is known has no row, what
    was not told is empty. In CSV a name that a spreadsheet would take for a formula gets a ' before it.

    \b
    forebay history export --kind gpu --last 24h > gpus.csv
    forebay history export --kind node --from 2026-11-01 --to 2026-12-01 --resolution 1d --format json -o november.json
    forebay history export --kind backend --last 30d --format parquet -o backends.parquet
    """
    span = parse_span(last, since, until, time.time(), "24h")
    request = wire.ReadHistoryRequest(
        kind=KINDS[kind],
        names=names,
        from_us=span.from_us,
        to_us=span.to_us,
        resolution_s=parse_resolution(resolution),
        time_zone=zone,
        metrics=metrics,
    )

    async def work(calls: Calls) -> int:
        rows = 0
        with ExitStack() as stack:
            writer: Writer | None = None
            kept: Sequence[str] = ()
            async for page in _pages(calls, request):
                if writer is None:  # only now: a question that is refused makes no file
                    known = (await calls(calls.stub.ShowSeries, wire.ListSeriesRequest(kind=KINDS[kind]))).metrics
                    kept = [metric for metric in known if metric in metrics or not metrics]
                    writer = stack.enter_context(open_writer(form, path, kept))
                for row in rows_of(page, kind, kept):
                    writer.write(row)
                    rows += 1
        return rows

    rows = ask(work)
    if path != "-":
        click.echo(f"{count(rows)} rows in {path}.")


class _Shown:
    """One series over the whole span."""

    def __init__(self, first: wire.HistorySeries, resolution_s: int, zone: str) -> None:
        self._name, self._id = first.name, first.id
        self._metrics = [column.metric for column in first.columns]
        self._resolution_s, self._zone = resolution_s, zone
        self._from_us, self._to_us = first.from_us, first.to_us
        self._points: list[Point] = []

    def add(self, series: wire.HistorySeries) -> None:
        self._to_us = series.to_us
        self._points += points_of(series)

    def plain(self, kind: str) -> dict[str, object]:
        return {
            "kind": kind,
            "name": self._name,
            "id": self._id,
            "resolution_s": self._resolution_s,
            "points": [plain_point(point, self._metrics) for point in self._all()],
        }

    def print(self, kind: str, *, one_metric: bool) -> None:
        points = self._all()
        step = next(word for word, seconds in RESOLUTIONS.items() if seconds == self._resolution_s)
        click.echo(f"{self._name}  {moment(self._from_us)} to {moment(self._to_us)}, by {step}")
        if not self._points:
            click.echo(f"Nothing is known of this {kind} from that time.")
            return
        metrics = [metric for metric in self._metrics if any(metric in point.values for point in points)]
        print_table(
            ("Metric", "", *(f"#{word.capitalize()}" for word in STATISTICS)),
            (
                (
                    metric,
                    sparkline([p.values[metric][1] if metric in p.values else None for p in points], _WIDTH),
                    *(amount(metric, number) for number in over_all(points, metric)),
                )
                for metric in metrics
            ),
            nothing="Only its energy is known of that time.",
        )
        self._print_energy()
        if one_metric and metrics:
            self._print_points(points, metrics[0])

    def _print_points(self, points: list[Point], metric: str) -> None:
        untold: tuple[None, ...] = (None,) * len(STATISTICS)
        print_table(
            ("At", *(f"#{word.capitalize()}" for word in STATISTICS), "#Samples"),
            (
                (
                    moment(point.at_us),
                    *(amount(metric, number) or "–" for number in point.values.get(metric, untold)),
                    str(point.samples.get(metric, "–")),
                )
                for point in points
            ),
            nothing="",
        )

    def _print_energy(self) -> None:
        gpu, server, idle = (total(self._points, name) for name in ("gpu_wh", "server_wh", "idle_wh"))
        if gpu is None and server is None:
            return
        told = [f"GPU {watt_hours(gpu)}"] if gpu is not None else []
        told.append(f"server {watt_hours(server)}" if server is not None else "the host does not tell the server's")
        if idle is not None:
            told.append(f"{watt_hours(idle)} of it while nothing ran")
        if any(point.is_estimated for point in self._points):
            told.append("estimated from power")
        click.echo(f"Energy: {', '.join(told)}.")

    def _all(self) -> list[Point]:
        return with_gaps(self._points, self._from_us, self._to_us, self._resolution_s, self._zone)


async def _collect(calls: Calls, request: wire.ReadHistoryRequest) -> list[_Shown]:
    """Several where a name was given to another node or backend since."""
    found: dict[str, _Shown] = {}
    async for page in _pages(calls, request):
        for series in page.series:
            shown = found.get(series.id)
            if shown is None:
                shown = found[series.id] = _Shown(series, page.resolution_s, request.time_zone)
            shown.add(series)
    return list(found.values())


def _pages(calls: Calls, request: wire.ReadHistoryRequest) -> AsyncIterator[wire.ReadHistoryResponse]:
    return pages_of(lambda asked: calls(calls.stub.ShowHistory, asked), request)
