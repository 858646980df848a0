"""What signs a call besides a Forebay key: a narrow token `fbadm-<id>-<secret>`, or a session `fbses-<id>-<secret>`. Pure.

The id names it in lists and in the audit log. The secret is 256 random bits, of which only an HMAC under the pepper is
kept."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from enum import StrEnum

from forebay.keys import new_key

SESSION_COOKIE = "forebay_session"
"""What holds a browser's session."""
_ID_LENGTH = 12


class BearerKind(StrEnum):
    TOKEN = "fbadm"
    SESSION = "fbses"
    RESET = "fbpwd"
    """Good once, for a password of one's own; signs no call."""
    DEVICE = "fbdev"
    """What a device asks with until somebody confirmed its code; signs no call."""


SIGNING = (BearerKind.TOKEN, BearerKind.SESSION)


@dataclass(frozen=True, slots=True)
class Bearer:
    kind: BearerKind
    id: str
    secret: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.kind}-{self.id}-{self.secret}"

    @property
    def name(self) -> str:
        """What it is called where its secret is nobody's business."""
        return f"{self.kind}-{self.id}"


def new_bearer(kind: BearerKind) -> Bearer:
    made = new_key()
    return Bearer(kind, made.public_id, made.secret)


def parse_bearer(text: str) -> Bearer | None:
    """None when it has not the form of one."""
    parts = text.split("-", 2)
    if not text.isascii() or len(parts) != 3 or parts[0] not in set(BearerKind):
        return None
    if len(parts[1]) != _ID_LENGTH or not parts[2]:
        return None
    return Bearer(BearerKind(parts[0]), parts[1], parts[2])


def signs_calls(text: str) -> bool:
    return text.startswith(tuple(f"{kind}-" for kind in SIGNING))


def csrf_token(pepper: bytes, session: Bearer) -> str:
    """What a page sends along with what it does under the session's cookie: other sites cannot read it."""
    mac = hmac.digest(pepper, b"forebay:csrf\n" + session.secret.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(mac).decode().rstrip("=")


def is_csrf_token(pepper: bytes, session: Bearer, told: str) -> bool:
    return hmac.compare_digest(csrf_token(pepper, session).encode(), told.encode(errors="replace"))
