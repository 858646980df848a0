"""Address rules, bans and security events as protobuf, and back. Nothing is decided here."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from forebay.address_gate import Mode
from forebay.client_addresses import parse_network
from forebay.errors import BadInput
from forebay.wire.v1 import security_pb2 as wire
from forebay_admin.security.events import SecurityEvent
from forebay_admin.security.rule_store import RulesUpdate
from forebay_admin.security.rules import HeldBan, Listed, Policy, Rule
from forebay_admin.wire_forms import moment, moment_us

_MODES = {
    Mode.PERMISSIVE: wire.ADDRESS_MODE_PERMISSIVE,
    Mode.RESTRICTIVE: wire.ADDRESS_MODE_RESTRICTIVE,
}
_LISTS = {Listed.DENY: wire.ADDRESS_LIST_DENY, Listed.ALLOW: wire.ADDRESS_LIST_ALLOW}
_KIND = re.compile(r"[a-z_]{1,40}")
_LONGEST = 300
_MOST = (1 << 63) - 1


def list_from(value: wire.AddressList.ValueType) -> Listed:
    """Raises BadInput."""
    for listed, number in _LISTS.items():
        if number == value:
            return listed
    raise BadInput(f"Say which list it is: {', '.join(Listed)}.")


def policy_from(before: Policy, request: wire.SetAddressPolicyRequest) -> Policy:
    """What is not said stays. Raises BadInput for a mode that this version does not know."""
    mode = before.mode
    if request.mode != wire.ADDRESS_MODE_UNSPECIFIED:
        mode = next((mode for mode, number in _MODES.items() if number == request.mode), mode)
        if _MODES[mode] != request.mode:
            raise BadInput(f"There is no mode {request.mode}; there are {', '.join(Mode)}.")
    bans = before.bans
    return Policy(
        mode,
        replace(
            bans,
            after=request.ban_after if request.HasField("ban_after") else bans.after,
            window_s=request.ban_window_s if request.HasField("ban_window_s") else bans.window_s,
            first_s=request.ban_first_s if request.HasField("ban_first_s") else bans.first_s,
            longest_s=request.ban_longest_s if request.HasField("ban_longest_s") else bans.longest_s,
        ),
    )


def policy_to_wire(policy: Policy) -> wire.AddressPolicy:
    bans = policy.bans
    return wire.AddressPolicy(
        mode=_MODES[policy.mode],
        ban_after=bans.after,
        ban_window_s=bans.window_s,
        ban_first_s=bans.first_s,
        ban_longest_s=bans.longest_s,
    )


def rule_to_wire(rule: Rule) -> wire.AddressRule:
    return wire.AddressRule(
        list=_LISTS[rule.list],
        network=str(rule.network),
        note=rule.note,
        created_by=rule.created_by,
        created_at_us=moment_us(rule.created_at),
    )


def ban_to_wire(ban: HeldBan) -> wire.AddressBan:
    return wire.AddressBan(
        network=str(ban.network),
        begun_at_us=moment_us(ban.begun_at),
        until_us=moment_us(ban.until) if ban.until is not None else None,
        reason=ban.reason,
        made_by=ban.made_by,
        strikes=ban.strikes,
        spares_valid=ban.spares_valid,
        lifted_at_us=moment_us(ban.lifted_at) if ban.lifted_at is not None else None,
        lifted_by=ban.lifted_by,
    )


def update_to_wire(update: RulesUpdate) -> wire.AddressRulesUpdate:
    lists = update.lists
    return wire.AddressRulesUpdate(
        version=update.version,
        snapshot=update.is_snapshot,
        policy=policy_to_wire(lists.policy) if lists is not None else None,
        rules=[rule_to_wire(rule) for rule in lists.rules] if lists is not None else (),
        bans=[ban_to_wire(ban) for ban in update.bans],
    )


def event_to_wire(event: SecurityEvent) -> wire.SecurityEvent:
    return wire.SecurityEvent(
        id=event.id.hex,
        kind=event.kind,
        at_us=moment_us(event.at),
        last_at_us=moment_us(event.last_at),
        count=event.count,
        source=event.source,
        address=event.address,
        key_id=event.key_id,
        user=event.user,
        reason=event.reason,
        detail=event.detail,
    )


def event_from(told: wire.SecurityEvent, source: str, now: datetime) -> SecurityEvent:
    """As a gateway reports it. Raises BadInput for what is none."""
    if not _KIND.fullmatch(told.kind):
        raise BadInput(f"{told.kind[:40]!r} is no kind of event.")
    if told.address and parse_network(told.address) is None:
        raise BadInput(f"{told.address[:60]!r} is no address.")
    try:
        event_id = UUID(hex=told.id)
    except ValueError as error:
        raise BadInput("An event's id has 32 hexadecimal digits.") from error
    last_at = _lately(told.last_at_us, now)
    return SecurityEvent(
        told.kind,
        min(_lately(told.at_us, now), last_at),
        last_at,
        max(1, min(told.count, _MOST)),
        source,
        told.address,
        line(told.key_id),
        line(told.user),
        line(told.reason),
        line(told.detail),
        event_id,
    )


def _lately(us: int, now: datetime) -> datetime:
    """Whoever's clock is wrong makes no partitions of it. The same each time that it is told, while it is right."""
    try:
        at = moment(us)
    except BadInput:
        return now
    return at if now - timedelta(days=1) <= at <= now + timedelta(hours=1) else now


def line(text: str) -> str:
    """Of what somebody else wrote: what can be shown of it, and not too long."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:_LONGEST]
