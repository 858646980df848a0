"""What the ledger says of the last hour, asked once for all pages that show it: live parts would ask every two seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from forebay.clock import Clock
from forebay.wire.v1 import usage_queries_pb2 as wire
from forebay_admin import lately
from forebay_admin.web.fleet.backends_view import Lately, lately_by_backend
from forebay_admin.web.fleet.overview_view import LastHour, last_hour
from forebay_admin.web.visit import Visit

US = 1_000_000
HOUR_S = 3600
_CALL = "QueryUsage"
_KEPT_S = 20.0
_USERS, _BACKENDS = 50, 10_000

T = TypeVar("T")


class LastHours:
    def __init__(self, clock: Clock) -> None:
        self._lately = lately.Lately(clock)

    async def by_backend(self, visit: Visit) -> Mapping[str, Lately] | None:
        """By the backend's id. None: not known, or not theirs to see."""
        return await self._told(visit, wire.USAGE_COLUMN_BACKEND, _BACKENDS, lately_by_backend)

    async def by_user(self, visit: Visit) -> LastHour | None:
        return await self._told(visit, wire.USAGE_COLUMN_USER, _USERS, last_hour)

    async def _told(
        self,
        visit: Visit,
        by: wire.UsageColumn.ValueType,
        limit: int,
        view: Callable[[wire.QueryUsageResponse], T],
    ) -> T | None:
        if not visit.may_all(_CALL):
            return None

        async def ask() -> T:
            return view(await visit.ask(_CALL, _question(visit.now, by, limit)))

        return await visit.told_or_none(_CALL, self._lately.told(str(by), _KEPT_S, ask))


def _question(now: float, by: wire.UsageColumn.ValueType, limit: int) -> wire.QueryUsageRequest:
    return wire.QueryUsageRequest(
        from_us=round((now - HOUR_S) * US), to_us=round(now * US), by=[by], order=wire.USAGE_ORDER_REQUESTS, limit=limit
    )
