"""`/console/security/bans` and `/console/security/addresses`: from where Forebay may be reached, and who is banned."""

from __future__ import annotations

from aiohttp import web

from forebay.wire.v1 import security_pb2
from forebay_admin.web.drafts import NO_DRAFTS, Drafts, demand_sure, sent
from forebay_admin.web.forms import Form, WrongField
from forebay_admin.web.paging import by_page
from forebay_admin.web.visit import Visit, Visits
from forebay_admin.web.watch.security_view import (
    ADDRESSES,
    BANS,
    LISTS,
    MODE_WORDS,
    MODES,
    ban_rows,
    rule_rows,
)


class AddressesPages:
    def __init__(self, visits: Visits) -> None:
        self._visits = visits

    def routes(self) -> list[web.RouteDef]:
        get, post = self._visits.get, self._visits.post
        return [
            get(BANS, self._bans, call="ListBans"),
            post(BANS, sent("ban", self._ban, self._show_bans, "network"), call="AddBan"),
            post(f"{BANS}/lift", sent("lift", self._lift, self._show_bans, "network"), call="RemoveBan"),
            get(ADDRESSES, self._addresses, call="ListAddressRules"),
            post(f"{ADDRESSES}/policy", sent("policy", self._policy, self._show, "mode"), call="SetAddressPolicy"),
            post(ADDRESSES, sent("rule", self._rule, self._show, "network"), call="AddAddressRule"),
            post(f"{ADDRESSES}/remove", sent("remove", self._remove, self._show, "network"), call="RemoveAddressRule"),
        ]

    # --- bans -----------------------------------------------------------------------------------------------------------

    async def _bans(self, visit: Visit) -> web.StreamResponse:
        return await self._show_bans(visit, NO_DRAFTS)

    async def _show_bans(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        over = bool(visit.query.get("over"))
        told = await visit.ask("ListBans", security_pb2.ListBansRequest(over=over))
        return visit.page(
            "watch/bans.html",
            title="Bans",
            status=drafts.status,
            view=by_page(ban_rows(told, visit.now), BANS, visit.query),
            with_over=over,
            drafts=drafts,
        )

    async def _ban(self, visit: Visit) -> web.StreamResponse:
        form = visit.form
        order = security_pb2.AddBanRequest(
            network=form.demand("network", "The address or network"),
            lasts_s=form.seconds("lasts", 0),
            reason=form.demand("reason", "The reason, which those who are banned are told,"),
            spare_valid=form.is_ticked("spare_valid"),
            force=form.is_ticked("force"),
        )
        ban = (await visit.ask("AddBan", order)).ban
        return visit.done(BANS, f"{ban.network} is banned.")

    async def _lift(self, visit: Visit) -> web.StreamResponse:
        network = visit.form.demand("network", "The address or network")
        ban = (await visit.ask("RemoveBan", security_pb2.RemoveBanRequest(network=network))).ban
        return visit.done(BANS, f"{ban.network} is let in again.")

    # --- addresses ------------------------------------------------------------------------------------------------------

    async def _addresses(self, visit: Visit) -> web.StreamResponse:
        return await self._show(visit, NO_DRAFTS)

    async def _show(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        told = await visit.ask("ListAddressRules", security_pb2.ListAddressRulesRequest())
        policy = told.policy
        return visit.page(
            "watch/addresses.html",
            title="Addresses",
            status=drafts.status,
            view=by_page(rule_rows(told), ADDRESSES, visit.query),
            policy=policy,
            usual={
                "mode": MODE_WORDS.get(policy.mode, ""),
                "ban_after": policy.ban_after,
                "ban_window": f"{policy.ban_window_s}s",
                "ban_first": f"{policy.ban_first_s}s",
                "ban_longest": f"{policy.ban_longest_s}s",
            },
            drafts=drafts,
        )

    async def _policy(self, visit: Visit) -> web.StreamResponse:
        form = visit.form
        order = security_pb2.SetAddressPolicyRequest(
            mode=MODES[_one_of(form, "mode", tuple(MODES))],
            ban_after=form.whole("ban_after", most=1_000_000),
            ban_window_s=form.seconds("ban_window"),
            ban_first_s=form.seconds("ban_first"),
            ban_longest_s=form.seconds("ban_longest"),
            force=form.is_ticked("force"),
        )
        await visit.ask("SetAddressPolicy", order)
        return visit.done(ADDRESSES, "The policy is set.")

    async def _rule(self, visit: Visit) -> web.StreamResponse:
        form = visit.form
        order = security_pb2.AddAddressRuleRequest(
            list=LISTS[_one_of(form, "list", tuple(LISTS))],
            network=form.demand("network", "The address or network"),
            note=form.get("note"),
            force=form.is_ticked("force"),
        )
        rule = (await visit.ask("AddAddressRule", order)).rule
        return visit.done(ADDRESSES, f"{rule.network} is on the list.")

    async def _remove(self, visit: Visit) -> web.StreamResponse:
        form = visit.form
        demand_sure(form)
        order = security_pb2.RemoveAddressRuleRequest(
            list=LISTS[_one_of(form, "list", tuple(LISTS))],
            network=form.demand("network", "The address or network"),
            force=form.is_ticked("force"),
        )
        rule = (await visit.ask("RemoveAddressRule", order)).rule
        return visit.done(ADDRESSES, f"{rule.network} is off the list.")


def _one_of(form: Form, name: str, words: tuple[str, ...]) -> str:
    """Raises WrongField."""
    if form.get(name) not in words:
        raise WrongField(name, f"This has to be {' or '.join(words)}.")
    return form.get(name)
