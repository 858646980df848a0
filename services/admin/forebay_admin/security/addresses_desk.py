"""Operators' calls about lists of addresses and bans. Nobody locks themselves out without saying that it is meant."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from forebay.client_addresses import Network
from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import NotFound, NotPossible
from forebay.rpc import caller_address
from forebay.wire.v1 import security_pb2 as wire
from forebay_admin.audit.audit import Note
from forebay_admin.audit.audit_store import Facts
from forebay_admin.changes import Change, Changes
from forebay_admin.people.access import Actor
from forebay_admin.security.event_book import EventBook
from forebay_admin.security.events import Kind, SecurityEvent, happened
from forebay_admin.security.gatekeeper import Gatekeeper
from forebay_admin.security.rule_store import (
    all_bans,
    count_bans,
    find_ban,
    keep_ban,
    keep_policy,
    keep_rule,
    read_lists,
    remove_rule,
)
from forebay_admin.security.rules import (
    MOST_MANUAL_BANS,
    MOST_RULES,
    HeldBan,
    Lists,
    Policy,
    Rule,
    demand_length,
    demand_network,
    demand_nobody_locked_out,
    demand_policy,
    demand_text,
    gate_of,
)
from forebay_admin.security.wire import (
    ban_to_wire,
    list_from,
    policy_from,
    policy_to_wire,
    rule_to_wire,
)


class AddressesDesk:
    def __init__(
        self, database: Database, changes: Changes, gatekeeper: Gatekeeper, book: EventBook, clock: Clock
    ) -> None:
        self._database = database
        self._changes = changes
        self._gatekeeper = gatekeeper
        self._book = book
        self._clock = clock
        self._note = Note(clock)

    async def list_rules(self) -> wire.ListAddressRulesResponse:
        async with self._database.reading() as connection:
            lists = await read_lists(connection)
        return wire.ListAddressRulesResponse(
            policy=policy_to_wire(lists.policy), rules=[rule_to_wire(rule) for rule in lists.rules]
        )

    async def set_policy(self, request: wire.SetAddressPolicyRequest, actor: Actor) -> wire.SetAddressPolicyResponse:
        async with self._changes.make(self._database) as change:
            lists = await read_lists(change.connection)
            after = replace(lists, policy=demand_policy(policy_from(lists.policy, request)))
            await self._demand_harmless(change, lists, after, force=request.force)
            await keep_policy(change, after.policy)
            await self._note(
                change, actor, "address.policy", "all", before=_policy(lists.policy), after=_policy(after.policy)
            )
        await self._gatekeeper.caught_up(change.version)
        return wire.SetAddressPolicyResponse(policy=policy_to_wire(after.policy), version=change.version)

    async def add_rule(self, request: wire.AddAddressRuleRequest, actor: Actor) -> wire.AddAddressRuleResponse:
        listed, network = list_from(request.list), demand_network(request.network)
        rule = Rule(listed, network, demand_text(request.note, "note"), actor.name, self._now())
        async with self._changes.make(self._database) as change:
            lists = await read_lists(change.connection)
            before = lists.find(listed, network)
            if before is None and len(lists.rules) >= MOST_RULES:
                raise NotPossible(
                    f"There are {MOST_RULES} networks in the lists already: remove some, or name larger ones."
                )
            after = replace(lists, rules=(*(one for one in lists.rules if one is not before), rule))
            await self._demand_harmless(change, lists, after, force=request.force)
            await keep_rule(change, rule)
            facts = _rule(before) if before is not None else None
            await self._note(change, actor, f"address.{listed}", str(network), before=facts, after=_rule(rule))
        await self._gatekeeper.caught_up(change.version)
        return wire.AddAddressRuleResponse(rule=rule_to_wire(rule), version=change.version)

    async def remove_rule(self, request: wire.RemoveAddressRuleRequest, actor: Actor) -> wire.RemoveAddressRuleResponse:
        listed, network = list_from(request.list), demand_network(request.network)
        async with self._changes.make(self._database) as change:
            lists = await read_lists(change.connection)
            rule = lists.find(listed, network)
            if rule is None:
                raise NotFound(f"{network} does not stand in that list.")
            after = replace(lists, rules=tuple(one for one in lists.rules if one is not rule))
            await self._demand_harmless(change, lists, after, force=request.force)
            await remove_rule(change, rule)
            await self._note(change, actor, f"address.{listed}", str(network), before=_rule(rule))
        await self._gatekeeper.caught_up(change.version)
        return wire.RemoveAddressRuleResponse(rule=rule_to_wire(rule), version=change.version)

    async def list_bans(self, request: wire.ListBansRequest) -> wire.ListBansResponse:
        async with self._database.reading() as connection:
            bans = await all_bans(connection, self._now(), over=request.over)
        return wire.ListBansResponse(bans=[ban_to_wire(ban) for ban in bans])

    async def add_ban(self, request: wire.AddBanRequest, actor: Actor) -> wire.AddBanResponse:
        now, network = self._now(), demand_network(request.network)
        lasts_s = demand_length(request.lasts_s)
        ban = HeldBan(
            network,
            now,
            now + timedelta(seconds=lasts_s) if lasts_s else None,
            demand_text(request.reason, "reason"),
            actor.name,
            spares_valid=request.spare_valid,
        )
        async with self._changes.make(self._database) as change:
            lists = await read_lists(change.connection)
            before = await find_ban(change.connection, network)
            is_new = before is None or not before.made_by or not before.holds(now)
            if is_new and await count_bans(change.connection, now, by_people=True) >= MOST_MANUAL_BANS:
                raise NotPossible(f"{MOST_MANUAL_BANS} bans that people made hold already: deny networks instead.")
            await self._demand_harmless(change, lists, lists, bans=[ban], force=request.force)
            await keep_ban(change, ban)
            facts = _ban(before) if before is not None and before.holds(now) else None
            await self._note(change, actor, "ban.add", str(network), before=facts, after=_ban(ban))
            told = await self._book.enter(change.connection, [_banned(ban, now)])
        await self._book.tell(told)
        await self._gatekeeper.caught_up(change.version)
        return wire.AddBanResponse(ban=ban_to_wire(ban), version=change.version)

    async def remove_ban(self, request: wire.RemoveBanRequest, actor: Actor) -> wire.RemoveBanResponse:
        now, network = self._now(), demand_network(request.network)
        async with self._changes.make(self._database) as change:
            before = await find_ban(change.connection, network)
            if before is None or not before.holds(now):
                raise NotFound(f"{network} is not banned. `forebay ban list` shows who is.")
            ban = replace(before, lifted_at=now, lifted_by=actor.name)
            await keep_ban(change, ban)
            await self._note(change, actor, "ban.remove", str(network), before=_ban(before))
            unbanned = happened(Kind.UNBANNED, now, address=str(network), user=actor.name)
            told = await self._book.enter(change.connection, [unbanned])
        await self._book.tell(told)
        await self._gatekeeper.caught_up(change.version)
        return wire.RemoveBanResponse(ban=ban_to_wire(ban), version=change.version)

    async def _demand_harmless(
        self, change: Change, before: Lists, after: Lists, *, bans: Iterable[HeldBan] = (), force: bool
    ) -> None:
        """Raises LocksOut."""
        if force:
            return
        now = self._now()
        held: dict[Network, HeldBan] = {ban.network: ban for ban in await all_bans(change.connection, now)}
        then = {**held, **{ban.network: ban for ban in bans}}
        demand_nobody_locked_out(
            gate_of(before, held.values()), gate_of(after, then.values()), caller_address.get(), now
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


def _banned(ban: HeldBan, now: datetime) -> SecurityEvent:
    until = f"until {ban.until:%Y-%m-%d %H:%M:%S} UTC" if ban.until is not None else "until it is taken back"
    return happened(Kind.BANNED, now, address=str(ban.network), user=ban.made_by, reason=ban.reason, detail=until)


def _policy(policy: Policy) -> Facts:
    return {
        "mode": policy.mode.value,
        "ban_after": policy.bans.after,
        "ban_window_s": policy.bans.window_s,
        "ban_first_s": policy.bans.first_s,
        "ban_longest_s": policy.bans.longest_s,
    }


def _rule(rule: Rule) -> Facts:
    return {"list": rule.list.value, "note": rule.note}


def _ban(ban: HeldBan) -> Facts:
    return {
        "until": ban.until.isoformat() if ban.until is not None else None,
        "reason": ban.reason,
        "spares_valid": ban.spares_valid,
        "made_by": ban.made_by,
    }
