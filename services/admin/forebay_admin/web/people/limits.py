"""`/console/limits/KIND/NAME`: the limits and budgets of one user, group or key, and of those that count for it too."""

from __future__ import annotations

from aiohttp import web

from forebay.errors import NotFound
from forebay.wire.v1 import admin_pb2
from forebay_admin.web.drafts import NO_DRAFTS, Drafts, sent
from forebay_admin.web.paging import step
from forebay_admin.web.people.amounts import CAP_WORDS, CAPS, cap_of, caps_told
from forebay_admin.web.people.limits_view import KINDS, PERIOD_WORDS, UNITS, limits_view, order_of
from forebay_admin.web.visit import Visit, Visits

PATH = "/console/limits/{kind}/{name}"


class LimitsPages:
    def __init__(self, visits: Visits) -> None:
        self._visits = visits

    def routes(self) -> list[web.RouteDef]:
        get, post = self._visits.get, self._visits.post
        return [
            get(PATH, self._one, call="ListQuotas"),
            post(PATH, sent("limits", self._set, self._show), call="SetLimits"),
            post(f"{PATH}/budgets", sent("budget", self._add, self._show, "amount"), call="AddBudget"),
        ]

    async def _one(self, visit: Visit) -> web.StreamResponse:
        return await self._show(visit, NO_DRAFTS)

    async def _show(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        subject = _subject(visit)
        quotas = (await visit.ask("ShowQuota", admin_pb2.ShowQuotaRequest(subject=subject))).quotas
        own = quotas[0]
        shown = limits_view(quotas, visit.now)
        return visit.page(
            "people/limits.html",
            title=f"Limits of {shown[0].title}",
            status=drafts.status,
            own=shown[0],
            others=shown[1:],
            back=_back(visit),
            drafts=drafts,
            caps=caps_told(own),
            cap_words=tuple(CAP_WORDS.items()),
            units=tuple(UNITS),
            periods=tuple(PERIOD_WORDS.items()),
        )

    async def _set(self, visit: Visit) -> web.StreamResponse:
        order = admin_pb2.SetLimitsRequest(subject=_subject(visit), **{name: cap_of(visit.form, name) for name in CAPS})
        await visit.ask("SetLimits", order)
        return visit.done(_here(visit), "The limits are set.")

    async def _add(self, visit: Visit) -> web.StreamResponse:
        plan = order_of(visit.form)
        order = admin_pb2.AddBudgetRequest(
            subject=_subject(visit),
            unit=plan.unit,
            amount=plan.amount,
            period=plan.period,
            time_zone=plan.time_zone,
            window_s=plan.window_s,
            carry_most=plan.carry_most if plan.HasField("carry_most") else None,
        )
        await visit.ask("AddBudget", order)
        return visit.done(_here(visit), "The budget is added.")


def _subject(visit: Visit) -> admin_pb2.QuotaSubject:
    """Raises NotFound."""
    kind, name = visit.part("kind"), visit.part("name")
    if kind not in KINDS:
        raise NotFound(f"There are limits of a {', a '.join(KINDS)}.")
    return admin_pb2.QuotaSubject(**{"key_id" if kind == "key" else kind: name})


def _here(visit: Visit) -> str:
    return f"/console/limits/{step(visit.part('kind'))}/{step(visit.part('name'))}"


def _back(visit: Visit) -> str:
    return f"/console/{visit.part('kind')}s/{step(visit.part('name'))}"
