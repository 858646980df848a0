"""`/me`: how much of what one may use is used, what needs looking after, and what was asked last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from forebay.wire.v1 import admin_pb2
from forebay_admin.web.personal.keys_view import expiring, own_keys
from forebay_admin.web.personal.limits import own_balance
from forebay_admin.web.personal.limits_view import limits_view
from forebay_admin.web.personal.usage_view import Asked, points_of, question, request_rows, usage_view
from forebay_admin.web.visit import Visit, Visits

PATH = "/me"
_LAST = 10
_DAY, _WEEK, _MONTH = Asked("day", "", ""), Asked("week", "", ""), Asked("month", "", "")


class OverviewPages:
    def __init__(self, visits: Visits, *, gateway_url: str) -> None:
        self._visits = visits
        self._gateway_url = gateway_url

    def routes(self) -> list[web.RouteDef]:
        return [self._visits.get(PATH, self._page)]

    async def _page(self, visit: Visit) -> web.StreamResponse:
        keys = await visit.ask_or_none("ListKeys", admin_pb2.ListKeysRequest(user=visit.user))
        quota = await visit.ask_or_none("ShowQuota", admin_pb2.ShowQuotaRequest())
        last = await visit.ask_or_none("ShowUsage", admin_pb2.ShowUsageRequest(user=visit.user, rows=True, limit=_LAST))
        found = own_keys(keys.keys, visit.now) if keys is not None else None
        day, week, month = [await self._used(visit, asked) for asked in (_DAY, _WEEK, _MONTH)]
        return visit.page(
            "personal/overview.html",
            title=visit.user,
            keys=found,
            expiring=expiring(found or ()),
            limits=limits_view(quota.quotas) if quota is not None else None,
            balance=await own_balance(visit),
            day=usage_view(day) if day is not None else None,
            month=usage_view(month) if month is not None else None,
            points=_points(week),
            rows=request_rows(last.rows) if last is not None else None,
            gateway=self._gateway_url,
        )

    async def _used(self, visit: Visit, asked: Asked) -> Any:
        """None while it cannot be added up."""
        request = question(asked, visit.user, visit.now, bucketed=True)
        return await visit.ask_or_none("QueryUsage", request)


def _points(told: Any) -> Sequence[Any]:
    return points_of(told) if told is not None else ()
