"""What the ledger says of the last hour, asked once for all pages that show it: live parts would ask every two seconds."""

from __future__ import annotations

from collections.abc import Mapping

from forebay.wire.v1 import usage_queries_pb2 as wire
from forebay_admin.web.fleet.backends_view import Lately, lately_by_backend
from forebay_admin.web.fleet.overview_view import LastHour, last_hour
from forebay_admin.web.visit import Visit

US = 1_000_000
HOUR_S = 3600
_FRESH_S = 20.0
_USERS = 50


class LastHours:
    def __init__(self) -> None:
        self._by_backend: tuple[float, Mapping[str, Lately]] | None = None
        self._by_user: tuple[float, LastHour] | None = None

    async def by_backend(self, visit: Visit) -> Mapping[str, Lately] | None:
        """By the backend's id. None: not known, or not theirs to see."""
        if not visit.may_all("QueryUsage"):
            return None
        if self._by_backend is None or not _is_fresh(self._by_backend[0], visit.now):
            told = await visit.ask_or_none("QueryUsage", _question(visit.now, wire.USAGE_COLUMN_BACKEND, 10_000))
            if told is None:
                return None
            self._by_backend = visit.now, lately_by_backend(told)
        return self._by_backend[1]

    async def by_user(self, visit: Visit) -> LastHour | None:
        if not visit.may_all("QueryUsage"):
            return None
        if self._by_user is None or not _is_fresh(self._by_user[0], visit.now):
            told = await visit.ask_or_none("QueryUsage", _question(visit.now, wire.USAGE_COLUMN_USER, _USERS))
            if told is None:
                return None
            self._by_user = visit.now, last_hour(told)
        return self._by_user[1]


def _question(now: float, by: wire.UsageColumn.ValueType, limit: int) -> wire.QueryUsageRequest:
    return wire.QueryUsageRequest(
        from_us=round((now - HOUR_S) * US), to_us=round(now * US), by=[by], order=wire.USAGE_ORDER_REQUESTS, limit=limit
    )


def _is_fresh(at: float, now: float) -> bool:
    return 0 <= now - at < _FRESH_S
