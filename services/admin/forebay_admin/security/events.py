"""What happened that somebody should look at: one form for all of it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid4

OURS = "admin"
MOST_TOLD_SINGLY = 20
"""Of one kind in a minute to those who have subscribed: an attack must not fill anybody's mailbox."""
_MINUTE_S = 60.0


class Kind(StrEnum):
    LOGIN_FAILED = "login_failed"
    KEY_REFUSED = "key_refused"
    PERMISSION_REFUSED = "permission_refused"
    QUOTA_REFUSED = "quota_refused"
    ADDRESS_REFUSED = "address_refused"
    BANNED = "banned"
    UNBANNED = "unbanned"
    ADMIN_ACT = "admin_act"


@dataclass(frozen=True, slots=True)
class SecurityEvent:
    kind: str
    at: datetime
    """When it happened first."""
    last_at: datetime
    count: int = 1
    source: str = OURS
    """A gateway's name, or admin."""
    address: str = ""
    key_id: str = ""
    user: str = ""
    reason: str = ""
    detail: str = ""
    id: UUID = field(default_factory=uuid4)

    @property
    def summary(self) -> str:
        """In a sentence for people."""
        who = f" by {self.user}" if self.user else ""
        where = f" from {self.address}" if self.address else ""
        key = f" with the key {self.key_id}" if self.key_id and self.kind != Kind.ADMIN_ACT else ""
        times = f", {self.count} times" if self.count > 1 else ""
        what = f" ({self.reason})" if self.reason else ""
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.kind.replace('_', ' ').capitalize()}{who}{where}{key}{what}{times}{detail}."


def happened(kind: Kind, at: datetime, **facts: str) -> SecurityEvent:
    """Once, and now."""
    return SecurityEvent(kind, at, at, **facts)  # type: ignore[arg-type]  # they are texts, all of them


class Few:
    """What those are told who have subscribed: of each kind so many in a minute as they are, and when it is over all others
    in one, without what tells them apart."""

    def __init__(self) -> None:
        self._until = 0.0
        self._seen: Counter[str] = Counter()
        self._others: dict[str, SecurityEvent] = {}

    def is_due(self, at: float) -> bool:
        """There are others, and the minute is over."""
        return bool(self._others) and at >= self._until

    def of(self, events: Iterable[SecurityEvent], at: float) -> Sequence[SecurityEvent]:
        """`at`: on a clock that never goes back."""
        told: list[SecurityEvent] = []
        if at >= self._until:
            told += self._others.values()
            self._until = at + _MINUTE_S
            self._seen.clear()
            self._others.clear()
        for event in events:
            self._seen[event.kind] += 1
            if self._seen[event.kind] <= MOST_TOLD_SINGLY:
                told.append(event)
            else:
                self._fold(event)
        return told

    def _fold(self, event: SecurityEvent) -> None:
        before = self._others.get(event.kind)
        if before is None:
            others = replace(event, address="", key_id="", user="", reason="", detail="many others")
        else:
            others = replace(
                before,
                at=min(before.at, event.at),
                last_at=max(before.last_at, event.last_at),
                count=before.count + event.count,
            )
        self._others[event.kind] = others
