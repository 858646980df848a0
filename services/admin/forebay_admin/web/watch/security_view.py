"""What happened that somebody should look at, bans, and address lists, as the console shows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forebay.wire.v1 import security_pb2
from forebay_admin.security.events import Kind
from forebay_admin.web.forms import Form, WrongField
from forebay_admin.web.paging import address, step
from forebay_admin.web.watch.spans import from_us, unix

PATH, BANS, ADDRESSES = "/console/security", "/console/security/bans", "/console/security/addresses"
AT_ONCE = 50
KINDS = tuple(Kind)
LISTS = {"deny": security_pb2.ADDRESS_LIST_DENY, "allow": security_pb2.ADDRESS_LIST_ALLOW}
MODES = {"permissive": security_pb2.ADDRESS_MODE_PERMISSIVE, "restrictive": security_pb2.ADDRESS_MODE_RESTRICTIVE}
LIST_WORDS = {number: name for name, number in LISTS.items()}
MODE_WORDS = {number: name for name, number in MODES.items()}
_TONES = {
    Kind.LOGIN_FAILED: "warn",
    Kind.KEY_REFUSED: "warn",
    Kind.PERMISSION_REFUSED: "warn",
    Kind.QUOTA_REFUSED: "info",
    Kind.ADDRESS_REFUSED: "warn",
    Kind.BANNED: "bad",
    Kind.UNBANNED: "good",
    Kind.ADMIN_ACT: "info",
}


@dataclass(frozen=True, slots=True)
class EventRow:
    kind: str
    tone: str
    at: float | None
    last_at: float | None
    count: int
    source: str
    address: str
    address_path: str
    key_id: str
    key_path: str
    user: str
    user_path: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class SecurityView:
    rows: Sequence[EventRow]
    next_href: str
    first_href: str


@dataclass(frozen=True, slots=True)
class BanRow:
    network: str
    begun_at: float | None
    until: float | None
    """None: until it is taken back."""
    reason: str
    by: str
    strikes: int
    spares_valid: bool
    lifted_at: float | None
    lifted_by: str
    is_over: bool


@dataclass(frozen=True, slots=True)
class RuleRow:
    id: str
    """Of its form on the page."""
    list: str
    network: str
    note: str
    by: str
    added_at: float | None


def asked_for(query: Form) -> security_pb2.ListSecurityEventsRequest:
    """Raises WrongField."""
    kind = query.get("kind")
    if kind and kind not in KINDS:
        raise WrongField("kind", f"There are events of {', '.join(KINDS)}.")
    return security_pb2.ListSecurityEventsRequest(
        from_us=from_us(query, "from"),
        to_us=from_us(query, "to"),
        kind=kind,
        address=query.get("address"),
        key_id=query.get("key"),
        user=query.get("user"),
        limit=AT_ONCE,
        page=query.get("page"),
    )


def security_view(told: security_pb2.ListSecurityEventsResponse, query: Mapping[str, str]) -> SecurityView:
    return SecurityView(
        tuple(_event(event) for event in told.events),
        address(PATH, query, page=told.next_page) if told.next_page else "",
        address(PATH, query, page="") if query.get("page") else "",
    )


def ban_rows(told: security_pb2.ListBansResponse, now: float) -> Sequence[BanRow]:
    return tuple(_ban(ban, now) for ban in told.bans)


def rule_rows(told: security_pb2.ListAddressRulesResponse) -> Sequence[RuleRow]:
    return tuple(
        RuleRow(
            f"rule-{number}",
            LIST_WORDS.get(rule.list, "unknown"),
            rule.network,
            rule.note,
            rule.created_by,
            unix(rule.created_at_us),
        )
        for number, rule in enumerate(told.rules)
    )


def _event(event: security_pb2.SecurityEvent) -> EventRow:
    is_act = event.kind == Kind.ADMIN_ACT
    return EventRow(
        event.kind.replace("_", " "),
        _TONES.get(Kind(event.kind), "") if event.kind in KINDS else "",
        unix(event.at_us),
        unix(event.last_at_us),
        event.count,
        event.source,
        event.address,
        address(PATH, {}, address=event.address) if event.address else "",
        event.key_id,
        f"/console/keys/{step(event.key_id)}" if event.key_id and not is_act else "",
        event.user,
        # A part of Forebay has a space in its name, and no page.
        f"/console/users/{step(event.user)}" if event.user and " " not in event.user else "",
        event.reason,
        event.detail,
    )


def _ban(ban: security_pb2.AddressBan, now: float) -> BanRow:
    until = unix(ban.until_us) if ban.HasField("until_us") else None
    lifted_at = unix(ban.lifted_at_us) if ban.HasField("lifted_at_us") else None
    return BanRow(
        ban.network,
        unix(ban.begun_at_us),
        until,
        ban.reason,
        ban.made_by or "Forebay",
        ban.strikes,
        ban.spares_valid,
        lifted_at,
        ban.lifted_by,
        lifted_at is not None or (until is not None and until <= now),
    )
