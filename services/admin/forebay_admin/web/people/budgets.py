"""`/console/budgets` and `/console/balances`: what people may spend, and what was paid in advance."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from aiohttp import web

from forebay.errors import NotFound
from forebay.wire.v1 import admin_pb2, notifications_pb2, prices_pb2
from forebay_admin.row_files import Row
from forebay_admin.web.downloads import send_csv
from forebay_admin.web.drafts import NO_DRAFTS, Drafts, demand_sure, sent
from forebay_admin.web.forms import Form, WrongField
from forebay_admin.web.paging import by_page, step
from forebay_admin.web.people.budgets_view import (
    BALANCES,
    COLUMNS,
    PATH,
    balance_row,
    balance_view,
    budget_rows_of_file,
    budget_with_id,
    fitting,
    quotas_view,
)
from forebay_admin.web.people.limits_view import KINDS, UNITS, BudgetRow, Limits, amount_of, typed_amount
from forebay_admin.web.visit import Visit, Visits

POSTINGS = {"top_up": "Paid in", "refund": "Paid back", "adjustment": "Put right"}
_LISTED = 100


class BudgetsPages:
    def __init__(self, visits: Visits) -> None:
        self._visits = visits

    def routes(self) -> list[web.RouteDef]:
        get, post = self._visits.get, self._visits.post
        one, balance = f"{PATH}/{{id}}", f"{BALANCES}/{{id}}"
        return [
            get(PATH, self._list, call="ListQuotas"),
            get(f"{PATH}.csv", self._file, call="ListQuotas"),
            get(one, self._one, call="ListQuotas"),
            post(f"{one}/size", sent("size", self._size, self._show, "amount"), call="ChangeBudget"),
            post(
                f"{one}/thresholds",
                sent("thresholds", self._thresholds, self._show, "percents"),
                call="SetBudgetThresholds",
            ),
            post(f"{one}/remove", sent("remove", self._remove, self._show, "sure"), call="RemoveBudget"),
            get(BALANCES, self._balances, call="ListBalances"),
            post(BALANCES, sent("open", self._open, self._show_balances, "name"), call="OpenBalance"),
            get(balance, self._balance, call="ListBalances"),
            post(f"{balance}/post", sent("post", self._post, self._show_balance, "amount"), call="PostBalance"),
            post(f"{balance}/close", sent("close", self._close, self._show_balance, "sure"), call="CloseBalance"),
        ]

    # --- budgets --------------------------------------------------------------------------------------------------------

    async def _list(self, visit: Visit) -> web.StreamResponse:
        told = await visit.ask("ListQuotas", admin_pb2.ListQuotasRequest())
        return visit.page(
            "people/budgets.html",
            title="Budgets",
            view=quotas_view(told.quotas, visit.query),
            filters=NO_DRAFTS.filled("filter", Form(tuple(visit.query.items()))),
            kinds=(("", "Everybody"), *((kind, f"{kind.capitalize()}s") for kind in KINDS)),
        )

    async def _file(self, visit: Visit) -> web.StreamResponse:
        async def pieces() -> AsyncIterator[Sequence[Row]]:
            told = await visit.ask("ListQuotas", admin_pb2.ListQuotasRequest())
            yield budget_rows_of_file(fitting(told.quotas, visit.query))

        return await send_csv(visit, "budgets", COLUMNS, pieces())

    async def _one(self, visit: Visit) -> web.StreamResponse:
        return await self._show(visit, NO_DRAFTS)

    async def _show(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        quota, budget = await _budget(visit)
        return visit.page(
            "people/budget.html",
            title=f"Budget of {quota.title}",
            status=drafts.status,
            quota=quota,
            budget=budget,
            drafts=drafts,
            amount=typed_amount(budget.whole, budget.is_money) if not budget.carried else "",
        )

    async def _size(self, visit: Visit) -> web.StreamResponse:
        (_, budget), form = await _budget(visit), visit.form
        carry = form.get("carry_most")
        most = amount_of(form, "carry_most", budget.is_money) if carry else None
        has_word = carry != budget.carry_most
        order = admin_pb2.ChangeBudgetRequest(
            id=budget.id,
            unit=UNITS["money" if budget.is_money else "tokens"],
            amount=amount_of(form, "amount", budget.is_money),
            carry_over=admin_pb2.Cap(most=most) if has_word else None,
        )
        await visit.ask("ChangeBudget", order)
        return visit.done(budget.path, "The budget is changed; what was spent stays spent.")

    async def _thresholds(self, visit: Visit) -> web.StreamResponse:
        form, budget_id = visit.form, visit.part("id")
        order = notifications_pb2.SetBudgetThresholdsRequest(id=budget_id, percents=_percents(form))
        if form.get("way") == "usual":
            order = notifications_pb2.SetBudgetThresholdsRequest(id=budget_id, usual=True)
        told = await visit.ask("SetBudgetThresholds", order)
        percents = ", ".join(f"{percent} %" for percent in told.percents)
        said = (
            f"Whoever wants to hear of this budget does so at {percents}."
            if percents
            else "Nobody hears of this budget."
        )
        return visit.done(f"{PATH}/{step(budget_id)}", said)

    async def _remove(self, visit: Visit) -> web.StreamResponse:
        demand_sure(visit.form)
        quota, budget = await _budget(visit)
        await visit.ask("RemoveBudget", admin_pb2.RemoveBudgetRequest(id=budget.id))
        return visit.done(quota.path, f"The budget of {budget.size} is removed.")

    # --- balances -------------------------------------------------------------------------------------------------------

    async def _balances(self, visit: Visit) -> web.StreamResponse:
        return await self._show_balances(visit, NO_DRAFTS)

    async def _show_balances(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        closed = bool(visit.query.get("closed"))
        told = await visit.ask("ListBalances", prices_pb2.ListBalancesRequest(closed_too=closed))
        return visit.page(
            "people/balances.html",
            title="Balances",
            status=drafts.status,
            view=by_page([balance_row(one) for one in told.balances], BALANCES, visit.query),
            with_closed=closed,
            drafts=drafts,
        )

    async def _open(self, visit: Visit) -> web.StreamResponse:
        form = visit.form
        kind, name = form.get("kind", "user"), form.demand("name", "The name")
        if kind not in ("user", "group"):
            raise WrongField("kind", "A balance is a user's or a group's.")
        order = prices_pb2.OpenBalanceRequest(
            owner=prices_pb2.BalanceOwner(**{kind: name}),
            amount_micros=form.micro("amount", 0),
            reference=form.get("reference"),
        )
        opened = (await visit.ask("OpenBalance", order)).balance
        return visit.done(f"{BALANCES}/{step(opened.id)}", f"The balance of the {kind} {opened.name} is open.")

    async def _balance(self, visit: Visit) -> web.StreamResponse:
        return await self._show_balance(visit, NO_DRAFTS)

    async def _show_balance(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        owner = prices_pb2.BalanceOwner(id=visit.part("id"))
        told = await visit.ask("ShowBalance", prices_pb2.ShowBalanceRequest(owner=owner, limit=_LISTED))
        view = balance_view(told)
        return visit.page(
            "people/balance.html",
            title=f"Balance of {view.row.kind} {view.row.name}",
            status=drafts.status,
            view=view,
            drafts=drafts,
            kinds=tuple(POSTINGS.items()),
        )

    async def _post(self, visit: Visit) -> web.StreamResponse:
        form = visit.form
        kind = form.get("kind", "top_up")
        if kind not in POSTINGS:
            raise WrongField("kind", f"Money is {', '.join(POSTINGS.values()).lower()}.")
        form.demand("amount", "The amount")
        order = prices_pb2.PostBalanceRequest(
            owner=prices_pb2.BalanceOwner(id=visit.part("id")),
            kind=kind,
            amount_micros=form.micro("amount", may_be_negative=kind == "adjustment"),
            reference=form.get("reference"),
            note=form.get("note"),
        )
        told = await visit.ask("PostBalance", order)
        said = "This reference was posted before; nothing changed." if told.repeated else "Posted."
        return visit.done(f"{BALANCES}/{step(visit.part('id'))}", said)

    async def _close(self, visit: Visit) -> web.StreamResponse:
        demand_sure(visit.form)
        owner = prices_pb2.BalanceOwner(id=visit.part("id"))
        closed = (await visit.ask("CloseBalance", prices_pb2.CloseBalanceRequest(owner=owner))).balance
        return visit.done(BALANCES, f"The balance of {closed.kind} {closed.name} is closed.")


async def _budget(visit: Visit) -> tuple[Limits, BudgetRow]:
    """Raises NotFound."""
    told = await visit.ask("ListQuotas", admin_pb2.ListQuotasRequest())
    found = budget_with_id(told.quotas, visit.part("id"))
    if found is None:
        raise NotFound(f"There is no budget {visit.part('id')[:60]}.")
    return found


def _percents(form: Form) -> list[int]:
    """Raises WrongField."""
    found = []
    for text in form.many("percents"):
        if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) <= 1000):
            raise WrongField(
                "percents", f"These have to be whole numbers such as 50, 80, 100, and {text[:20]!r} is none."
            )
        found.append(int(text))
    return found
