"""`/console/requests`: what people ask for, and those who ask to be let in; each is approved or refused with a word."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from forebay.wire.v1 import access_requests_pb2, admin_pb2, key_terms_pb2
from forebay_admin.web.drafts import NO_DRAFTS, Drafts, sent
from forebay_admin.web.forms import WrongField
from forebay_admin.web.paging import by_page
from forebay_admin.web.people.limits_view import BudgetRow
from forebay_admin.web.people.requests_view import PATH, access_request_row, budgets_by_id, quota_request_row
from forebay_admin.web.visit import Visit, Visits

_DECISIONS = ("approve", "refuse")
_AT_ONCE = 20


class RequestsPages:
    def __init__(self, visits: Visits) -> None:
        self._visits = visits

    def routes(self) -> list[web.RouteDef]:
        get, post = self._visits.get, self._visits.post
        return [
            get(PATH, self._list, call="ListQuotaRequests", whole=True),
            post(f"{PATH}/quota/{{id}}", self._decide, call="DecideQuotaRequest"),
            post(f"{PATH}/access/{{id}}", self._decide_access, call="DecideAccessRequest"),
        ]

    async def _list(self, visit: Visit) -> web.StreamResponse:
        return await self._show(visit, NO_DRAFTS)

    async def _show(self, visit: Visit, drafts: Drafts, made: object = None) -> web.StreamResponse:
        decided = bool(visit.query.get("decided"))
        wanted = key_terms_pb2.ListQuotaRequestsRequest(include_decided=decided, user=visit.query.get("user", ""))
        told = await visit.ask("ListQuotaRequests", wanted)
        access = None
        if visit.may_all("ListAccessRequests"):
            asked = access_requests_pb2.ListAccessRequestsRequest(include_decided=decided)
            access = await visit.ask_or_none("ListAccessRequests", asked)
        budgets: Mapping[str, BudgetRow] = {}
        if any(one.wish.WhichOneof("of") == "budget" for one in told.requests):
            quotas = await visit.ask_or_none("ListQuotas", admin_pb2.ListQuotasRequest())
            budgets = budgets_by_id(quotas.quotas) if quotas is not None else {}
        rows = [quota_request_row(one, budgets) for one in told.requests]
        people = [access_request_row(one) for one in access.requests] if access is not None else None
        return visit.page(
            "people/requests.html",
            title="Requests",
            status=drafts.status,
            view=by_page(rows, PATH, visit.query, _AT_ONCE),
            access=by_page(people, PATH, visit.query, _AT_ONCE) if people is not None else None,
            with_decided=decided,
            drafts=drafts,
            made=made,
        )

    async def _decide(self, visit: Visit) -> web.StreamResponse:
        return await sent(f"quota-{visit.part('id')}", self._quota, self._show, "answer")(visit)

    async def _quota(self, visit: Visit) -> web.StreamResponse:
        approve, answer = _decision(visit)
        order = key_terms_pb2.DecideQuotaRequestRequest(id=visit.part("id"), approve=approve, answer=answer)
        decided = (await visit.ask("DecideQuotaRequest", order)).request
        return visit.done(PATH, f"What {decided.user_name} asked for is {'done' if approve else 'refused'}.")

    async def _decide_access(self, visit: Visit) -> web.StreamResponse:
        return await sent(f"access-{visit.part('id')}", self._access, self._show, "user")(visit)

    async def _access(self, visit: Visit) -> web.StreamResponse:
        approve, answer = _decision(visit)
        order = access_requests_pb2.DecideAccessRequestRequest(
            id=visit.part("id"),
            approve=approve,
            answer=answer,
            user=visit.form.get("user"),
            group=visit.form.get("group"),
        )
        decided = await visit.ask("DecideAccessRequest", order)
        if approve:
            return await self._show(visit, NO_DRAFTS, decided)
        return visit.done(PATH, f"{decided.request.name} is refused.")


def _decision(visit: Visit) -> tuple[bool, str]:
    """And the word that goes with it. Raises WrongField."""
    form = visit.form
    decision = form.get("decision")
    if decision not in _DECISIONS:
        raise WrongField("answer", "Approve it or refuse it.")
    approve = decision == "approve"
    answer = form.get("answer") if approve else form.demand("answer", "A word to whoever asked, why it is refused,")
    return approve, answer
