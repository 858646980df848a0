"""The registry's gRPC methods about history: parse, read, reply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import nan

from forebay.clock import micros
from forebay.errors import BadInput
from forebay.wire.v1 import history_pb2 as wire
from forebay_registry.history.reading import Found, HistoryReader, Page, Point, Question, Value
from forebay_registry.history.rollup import Energy
from forebay_registry.history.series import METRICS, Kind

_KINDS = {
    wire.SERIES_KIND_NODE: Kind.NODE,
    wire.SERIES_KIND_GPU: Kind.GPU,
    wire.SERIES_KIND_BACKEND: Kind.BACKEND,
    wire.SERIES_KIND_MODEL: Kind.MODEL,
}
_NOTHING = Value(0, None, None, None, None)


class HistoryCalls:
    def __init__(self, reader: HistoryReader) -> None:
        self._reader = reader

    async def read(self, request: wire.ReadHistoryRequest) -> wire.ReadHistoryResponse:
        question = Question(
            kind=_kind(request.kind),
            names=tuple(dict.fromkeys(request.names)),
            since=request.from_us / 1_000_000,
            until=request.to_us / 1_000_000,
            resolution_s=request.resolution_s,
            zone=request.time_zone,
            metrics=tuple(request.metrics),
            has_metrics=not request.energy_only,
            page=request.page,
            is_whole=request.whole,
        )
        return to_page(await self._reader.read(question))

    async def list_series(self, request: wire.ListSeriesRequest) -> wire.ListSeriesResponse:
        kind = _kind(request.kind)
        return wire.ListSeriesResponse(names=await self._reader.names(kind), metrics=METRICS[kind])


def to_page(page: Page) -> wire.ReadHistoryResponse:
    return wire.ReadHistoryResponse(
        resolution_s=page.grid.resolution,
        series=[_to_series(page, found) for found in page.series],
        next_page=page.next,
    )


def _to_series(page: Page, found: Found) -> wire.HistorySeries:
    edges = page.grid.edges
    points = [(bucket, found.points[bucket]) for bucket in sorted(found.points)]
    energies = [point.energy or Energy() for _, point in points]
    return wire.HistorySeries(
        id=found.ref,
        name=found.name,
        at_us=[micros(edges[bucket].timestamp()) for bucket, _ in points],
        columns=[_to_column(metric, [point for _, point in points]) for metric in page.metrics],
        gpu_wh=[_told(e.gpu_wh) for e in energies],
        server_wh=[_told(e.server_wh) for e in energies],
        idle_wh=[_told(e.idle_wh) for e in energies],
        measured_s=[e.measured_s for e in energies],
        estimated=[e.is_estimated for e in energies],
        from_us=micros(edges[found.first].timestamp()),
        to_us=micros(edges[found.last].timestamp()),
    )


def _to_column(metric: str, points: Sequence[Point]) -> wire.HistoryColumn:
    values = [point.values.get(metric, _NOTHING) for point in points]

    def each(read: Callable[[Value], float | None]) -> list[float]:
        return [_told(read(value)) for value in values]

    return wire.HistoryColumn(
        metric=metric,
        mins=each(lambda v: v.least),
        means=each(lambda v: v.mean),
        maxs=each(lambda v: v.most),
        lasts=each(lambda v: v.last),
        samples=[value.samples for value in values],
    )


def _told(number: float | None) -> float:
    return nan if number is None else number


def _kind(kind: wire.SeriesKind.ValueType) -> Kind:
    if kind not in _KINDS:
        raise BadInput("Say of what: a node, a GPU, a backend or a model.")
    return _KINDS[kind]
