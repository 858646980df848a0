"""Sessions and narrow tokens as they are shown, and what the form of a new token says. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from forebay.errors import BadInput
from forebay.wire.v1 import identity_pb2
from forebay_admin.people.permissions import OWN, parse_permission
from forebay_admin.people.roles import Reach
from forebay_admin.web.forms import Form, WrongField

TOKEN_LIVES = (("1", "in a day"), ("7", "in a week"), ("30", "in 30 days"), ("90", "in 90 days"), ("365", "in a year"))
_DAY_S = 86_400
_KINDS = {
    identity_pb2.SESSION_KIND_WEB: "a browser",
    identity_pb2.SESSION_KIND_PROGRAM: "the command line",
}


@dataclass(frozen=True, slots=True)
class SessionView:
    id: str
    what: str
    way: str
    address: str
    calls_itself: str
    began_at: float
    seen_at: float
    expires_at: float
    is_this: bool


@dataclass(frozen=True, slots=True)
class TokenView:
    id: str
    name: str
    permissions: tuple[str, ...]
    created_at: float
    expires_at: float | None
    used_at: float | None
    is_over: bool


def sessions_view(sessions: Sequence[identity_pb2.Session]) -> tuple[SessionView, ...]:
    """This one first, then the latest used."""
    found = [
        SessionView(
            one.id,
            _KINDS.get(one.kind, "something"),
            one.way,
            one.address,
            one.user_agent,
            one.created_at_us / 1e6,
            one.last_seen_at_us / 1e6,
            one.expires_at_us / 1e6,
            one.is_this,
        )
        for one in sessions
    ]
    return tuple(sorted(found, key=lambda one: (not one.is_this, -one.seen_at)))


def tokens_view(tokens: Sequence[identity_pb2.AdminToken], now: float) -> tuple[TokenView, ...]:
    found = [
        TokenView(
            one.id,
            one.name or "without a name",
            tuple(one.permissions),
            one.created_at_us / 1e6,
            one.expires_at_us / 1e6 if one.HasField("expires_at_us") else None,
            one.last_used_at_us / 1e6 if one.last_used_at_us else None,
            one.HasField("expires_at_us") and one.expires_at_us / 1e6 <= now,
        )
        for one in tokens
    ]
    return tuple(sorted(found, key=lambda one: -one.created_at))


def grantable(groups: Mapping[str, Collection[str]], reach: Callable[[str], Reach]) -> tuple[str, ...]:
    """The permissions that somebody with this reach can give a token: as far as theirs goes in each group."""
    found = []
    for name, calls in groups.items():
        whole = parse_permission(name)
        if all(reach(call) is Reach.ALL for call in calls if whole.reach(call) is Reach.ALL):
            found.append(name)
        elif any(reach(call) is not Reach.NONE for call in calls) and _is_permission(f"{name}{OWN}"):
            found.append(f"{name}{OWN}")
    return tuple(found)


def _is_permission(text: str) -> bool:
    try:
        parse_permission(text)
    except BadInput:
        return False
    return True


def token_of(form: Form, user: str) -> identity_pb2.CreateTokenRequest:
    """Raises WrongField."""
    permissions = form.many("permissions")
    if not permissions:
        raise WrongField("permissions", "Tick at least one thing that it may do.")
    days = form.whole("days", 90, least=1, most=3650)
    return identity_pb2.CreateTokenRequest(
        user=user, name=form.demand("name", "A name"), permissions=permissions, expires_in_s=days * _DAY_S
    )
