"""Operators' questions about history and energy. The registry has the numbers of nodes, GPUs, backends and models; whose
tokens they were, the ledger here knows."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput, NotPossible
from forebay.wire.v1 import history_pb2 as wire
from forebay_admin.fleet.energy import Hour, Rest, Spent, Sum, attribute
from forebay_admin.fleet.history_client import HistoryClient
from forebay_admin.fleet.tokens_store import tokens_by_hour
from forebay_admin.wire_forms import moment, moment_us

LONGEST_DIVIDED = timedelta(days=31)
"""For which energy is divided among models or groups at once."""
MOST_HOURS = 250_000
"""Of backends, that are divided at once."""

_HOUR = timedelta(hours=1)
_SERIES = {
    wire.ENERGY_BY_NODE: wire.SERIES_KIND_NODE,
    wire.ENERGY_BY_GPU: wire.SERIES_KIND_GPU,
    wire.ENERGY_BY_BACKEND: wire.SERIES_KIND_BACKEND,
}
_DIVIDED = (wire.ENERGY_BY_MODEL, wire.ENERGY_BY_GROUP)
_RESTS = {
    Rest.IDLE: wire.ENERGY_REST_IDLE,
    Rest.ELSEWHERE: wire.ENERGY_REST_ELSEWHERE,
    Rest.NO_BACKEND: wire.ENERGY_REST_NO_BACKEND,
}


class HistoryDesk:
    def __init__(self, database: Database, history: HistoryClient, clock: Clock) -> None:
        self._database = database
        self._history = history
        self._clock = clock

    async def show(self, request: wire.ReadHistoryRequest) -> wire.ReadHistoryResponse:
        return await self._history.read(request)

    async def show_series(self, request: wire.ListSeriesRequest) -> wire.ListSeriesResponse:
        return await self._history.list_series(request)

    async def show_energy(self, request: wire.ShowEnergyRequest) -> wire.ShowEnergyResponse:
        since, until = self._span(request)
        if request.by in _SERIES:
            found = await self._by_series(_SERIES[request.by], since, until)
        elif request.by in _DIVIDED:
            found = await self._divided(since, until, by_group=request.by == wire.ENERGY_BY_GROUP)
        else:
            raise BadInput("Say whose energy: by node, GPU, backend, model or group.")
        largest = sorted(found.items(), key=lambda item: (-item[1].gpu_wh, str(item[0])))
        return wire.ShowEnergyResponse(
            from_us=moment_us(since), to_us=moment_us(until), sums=[_to_sum(whose, one) for whose, one in largest]
        )

    async def _by_series(
        self, kind: wire.SeriesKind.ValueType, since: datetime, until: datetime
    ) -> dict[str | Rest, Sum]:
        found: dict[str | Rest, Sum] = {}
        async for series in self._history.energy(kind, since, until, is_whole=True):
            for spent in _spent(series).values():
                total = found.setdefault(series.name, Sum())
                total.add(spent)
                total.idle_wh += spent.idle_wh or 0.0
        if kind == wire.SERIES_KIND_BACKEND:
            await self._add_the_others(found, since, until)
        return found

    async def _divided(self, since: datetime, until: datetime, *, by_group: bool) -> dict[str | Rest, Sum]:
        if until - since > LONGEST_DIVIDED + 2 * _HOUR:
            raise BadInput(f"Energy is divided for at most {LONGEST_DIVIDED.days} days at once.")
        hours: list[tuple[Hour, Spent]] = []
        async for series in self._history.energy(wire.SERIES_KIND_BACKEND, since, until, is_whole=False):
            hours += [((series.id, at), spent) for at, spent in _spent(series).items()]
            if len(hours) > MOST_HOURS:
                raise NotPossible(f"That are more than {MOST_HOURS:,} hours of backends: ask for a shorter time.")
        tokens = await tokens_by_hour(self._database, since, until, by_group=by_group)
        found = attribute(hours, tokens)
        await self._add_the_others(found, since, until)
        return found

    async def _add_the_others(self, found: dict[str | Rest, Sum], since: datetime, until: datetime) -> None:
        """GPUs that no backend runs on, and machines without any."""
        every, backends = Sum(), Sum()
        async for series in self._history.energy(wire.SERIES_KIND_NODE, since, until, is_whole=True):
            for spent in _spent(series).values():
                every.add(spent)
        for one in found.values():
            backends.gpu_wh += one.gpu_wh
            backends.gpu_only_wh += one.gpu_only_wh
            if one.server_wh is not None:
                backends.server_wh = (backends.server_wh or 0.0) + one.server_wh
        rest = every.without(backends)
        if max(rest.gpu_wh, rest.server_wh or 0.0) >= 0.005:  # less is what rounding left
            found[Rest.NO_BACKEND] = rest

    def _span(self, request: wire.ShowEnergyRequest) -> tuple[datetime, datetime]:
        """In whole hours. Raises BadInput."""
        since, until = moment(request.from_us), moment(request.to_us)
        if since >= until:
            raise BadInput("The span ends before it begins.")
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        until = min(until, now)
        since, end = (at.replace(minute=0, second=0, microsecond=0) for at in (since, until))
        return since, end if end == until else end + _HOUR


def _spent(series: wire.HistorySeries) -> dict[int, Spent]:
    """By the first second of its time since the epoch; what is not known is not there."""
    columns = zip(series.at_us, series.gpu_wh, series.server_wh, series.idle_wh, series.estimated, strict=True)
    return {
        at_us // 1_000_000: Spent(0.0 if math.isnan(gpu) else gpu, _told(server), _told(idle), is_estimated)
        for at_us, gpu, server, idle, is_estimated in columns
        if not (math.isnan(gpu) and math.isnan(server))
    }


def _told(number: float) -> float | None:
    return None if math.isnan(number) else number


def _to_sum(whose: str | Rest, one: Sum) -> wire.EnergySum:
    return wire.EnergySum(
        name="" if isinstance(whose, Rest) else whose,
        rest=_RESTS[whose] if isinstance(whose, Rest) else wire.ENERGY_REST_UNSPECIFIED,
        gpu_wh=one.gpu_wh,
        server_wh=one.server_wh,
        idle_wh=one.idle_wh,
        tokens=one.tokens,
        estimated=one.is_estimated,
        gpu_only_wh=one.gpu_only_wh,
    )
