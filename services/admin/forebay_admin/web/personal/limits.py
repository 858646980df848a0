"""`/me/limits`: what one may use, what of it is used, and asking for more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from forebay.errors import NotFound
from forebay.wire.v1 import admin_pb2, key_terms_pb2, prices_pb2
from forebay_admin.web.drafts import NO_DRAFTS, Drafts, sent
from forebay_admin.web.personal.keys_view import own_keys
from forebay_admin.web.personal.limits_view import (
    BalanceView,
    BudgetView,
    LimitsOf,
    asked_view,
    balance_view,
    budget_wish,
    limits_view,
    limits_wish,
)
from forebay_admin.web.visit import Visit, Visits

PATH = "/me/limits"


class OwnLimitsPages:
    def __init__(self, visits: Visits) -> None:
        self._visits = visits

    def routes(self) -> list[web.RouteDef]:
        ask = "RequestQuota"
        return [
            self._visits.get(PATH, self._page, call="ShowQuota"),
            self._visits.post(f"{PATH}/limits", sent("limits", self._ask_limits, self._show), call=ask),
            self._visits.post(f"{PATH}/budget", sent("budget", self._ask_budget, self._show), call=ask),
        ]

    async def _page(self, visit: Visit) -> web.StreamResponse:
        return await self._show(visit, NO_DRAFTS)

    async def _show(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        limits = await own_limits(visit)
        keys: Sequence[Any] = ()
        if visit.may("ListKeys"):
            keys = own_keys((await visit.ask("ListKeys", admin_pb2.ListKeysRequest(user=visit.user))).keys, visit.now)
        asked: Sequence[Any] = ()
        if visit.may("ListQuotaRequests"):
            request = key_terms_pb2.ListQuotaRequestsRequest(user=visit.user, include_decided=True)
            asked = asked_view((await visit.ask("ListQuotaRequests", request)).requests)
        return visit.page(
            "personal/limits.html",
            title="Your limits",
            status=drafts.status,
            drafts=drafts,
            limits=limits,
            budgets_all=_budgets(limits),
            choices=[(budget.id, f"{budget.title} ({budget.whose})") for budget in _budgets(limits)],
            balance=await own_balance(visit),
            keys=[("", "all of yours together"), *((key.id, key.name) for key in keys)],
            asked=asked,
        )

    async def _ask_limits(self, visit: Visit) -> web.StreamResponse:
        await visit.ask("RequestQuota", limits_wish(visit.form))
        return visit.done(PATH, "You asked for more. What becomes of it stands below.")

    async def _ask_budget(self, visit: Visit) -> web.StreamResponse:
        await visit.ask("RequestQuota", budget_wish(visit.form, _budgets(await own_limits(visit))))
        return visit.done(PATH, "You asked for more. What becomes of it stands below.")


async def own_limits(visit: Visit) -> tuple[LimitsOf, ...]:
    """Of whoever looks. Raises ForebayError."""
    return limits_view((await visit.ask("ShowQuota", admin_pb2.ShowQuotaRequest())).quotas)


async def own_balance(visit: Visit) -> BalanceView | None:
    """None: nothing was paid in advance for whoever looks, or it is not told."""
    if not visit.may("ShowBalance"):
        return None
    try:
        told = await visit.ask_or_none("ShowBalance", prices_pb2.ShowBalanceRequest(limit=10))
    except NotFound:
        return None
    return balance_view(told) if told is not None else None


def _budgets(limits: Sequence[LimitsOf]) -> list[BudgetView]:
    return [budget for one in limits for budget in one.budgets]
