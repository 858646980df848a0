"""Sessions and narrow tokens: how long each lives, and why it lets nobody in any more. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from forebay.errors import BadInput
from forebay_admin.people.people import Role
from forebay_admin.people.permissions import Permission
from forebay_admin.sign_in.bearers import BearerKind

TOKEN_LIFE = timedelta(days=90)
LONGEST_TOKEN_LIFE = timedelta(days=3660)
MOST_SESSIONS = 50
"""Of one user; the one that was not used for the longest gives way."""
_LONGEST_AGENT = 200
_LONGEST_NAME = 100


class SessionKind(StrEnum):
    WEB = "web"
    """A browser's cookie."""
    PROGRAM = "program"
    """A bearer, such as that of `forebay login`."""


@dataclass(frozen=True, slots=True)
class Lives:
    """How long sessions live."""

    web_idle: timedelta
    web_longest: timedelta
    program_idle: timedelta
    program_longest: timedelta

    def idle(self, kind: SessionKind) -> timedelta:
        return self.web_idle if kind is SessionKind.WEB else self.program_idle

    def longest(self, kind: SessionKind) -> timedelta:
        return self.web_longest if kind is SessionKind.WEB else self.program_longest


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who is at the door."""

    kind: SessionKind
    address: str
    user_agent: str = ""

    @property
    def told_agent(self) -> str:
        """As much of what the client calls itself as is kept."""
        return "".join(char for char in self.user_agent[:_LONGEST_AGENT] if char.isprintable())


@dataclass(frozen=True, slots=True)
class Session:
    id: str
    user_id: str
    user_name: str
    kind: SessionKind
    way: str
    """`password`, or the provider's name."""
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    address: str
    user_agent: str


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer for operators' calls that may do less than its user."""

    id: str
    name: str
    user_id: str
    user_name: str
    permissions: tuple[str, ...]
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Badge:
    """All that is needed to decide about the bearer of a session or a token, in memory."""

    kind: BearerKind
    id: str
    secret_hmac: bytes
    user_id: str
    user_name: str
    role: Role
    is_disabled: bool
    """Its user is."""
    is_ended: bool
    expires_at: datetime | None
    last_seen_at: datetime | None
    idle: timedelta | None
    """After so long without use it lets nobody in; None: it does not matter."""
    within: tuple[Permission, ...] | None
    """What a token may; None: all that its user may."""

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.id}"


def why_not(badge: Badge, seen_at: datetime | None, now: datetime) -> str:
    """Why it lets nobody in, empty when it does. `seen_at`: when this replica last saw it used."""
    what = "session" if badge.kind is BearerKind.SESSION else "token"
    if badge.is_ended:
        return f"This {what} has ended."
    if badge.is_disabled:
        return f"The user {badge.user_name} is disabled."
    if _is_expired(badge, now):
        return f"This {what} has expired."
    if _is_idle(badge, seen_at, now):
        return f"This {what} was not used for too long; sign in again."
    return ""


def is_over(badge: Badge, seen_at: datetime | None, now: datetime) -> bool:
    """Its time is, whatever else holds."""
    return _is_expired(badge, now) or _is_idle(badge, seen_at, now)


def _is_expired(badge: Badge, now: datetime) -> bool:
    return badge.expires_at is not None and now >= badge.expires_at


def _is_idle(badge: Badge, seen_at: datetime | None, now: datetime) -> bool:
    seen = max((at for at in (badge.last_seen_at, seen_at) if at is not None), default=None)
    return badge.idle is not None and seen is not None and now - seen >= badge.idle


def token_expiry(expires_in_s: int | None, now: datetime) -> datetime:
    """Raises BadInput."""
    if expires_in_s is None:
        return now + TOKEN_LIFE
    if expires_in_s == 0:
        raise BadInput("A token that expires in 0 seconds has expired already.")
    if expires_in_s > LONGEST_TOKEN_LIFE.total_seconds():
        raise BadInput(f"A token lives at most {LONGEST_TOKEN_LIFE.days} days.")
    return now + timedelta(seconds=expires_in_s)


def token_name(text: str) -> str:
    """Raises BadInput."""
    name = text.strip() or "token"
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise BadInput(f"A token's name has at most {_LONGEST_NAME} characters, all of them printable.")
    return name
