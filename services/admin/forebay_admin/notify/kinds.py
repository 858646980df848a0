"""What events there are, and which of them somebody asks for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from forebay.errors import BadInput

ALL = "*"
SUMMARY = "summary"
"""What an event's body holds under this is one sentence for people; a mail begins with it."""


class Kind(StrEnum):
    BUDGET_THRESHOLD = "budget.threshold"
    """A part of a budget is used up that somebody wants to hear of."""
    BALANCE_LOW = "balance.low"
    """Little is left of what was paid in advance."""
    QUOTA_ASKED = "quota.asked"
    """Somebody asks for more."""
    QUOTA_DECIDED = "quota.decided"
    """What became of that."""
    ACCESS_ASKED = "access.asked"
    """Somebody who is no user asks to be one."""
    LOGIN_FAILED = "security.login_failed"
    """Somebody came with a wrong password; what follows are security events too."""
    KEY_REFUSED = "security.key_refused"
    PERMISSION_REFUSED = "security.permission_refused"
    QUOTA_REFUSED = "security.quota_refused"
    ADDRESS_REFUSED = "security.address_refused"
    BANNED = "security.banned"
    UNBANNED = "security.unbanned"
    ADMIN_ACT = "security.admin_act"
    TEST = "notify.test"
    """Somebody tries a subscription."""


def demand_kinds(wanted: Iterable[str]) -> list[str]:
    """Each once: kinds, groups of them such as `budget.*`, or `*`, which is also what none is. Raises BadInput."""
    found = sorted({one.strip() for one in wanted}) or [ALL]
    known = {ALL, *Kind, *(group_of(kind) for kind in Kind)}
    for one in found:
        if one not in known:
            raise BadInput(f"There are no events {one[:60]!r}; there are {', '.join(sorted(known))}.")
    return [ALL] if ALL in found else found


def patterns_of(kind: str) -> Sequence[str]:
    """What a subscription names that wants this kind."""
    return (kind, group_of(kind), ALL)


def group_of(kind: str) -> str:
    return f"{kind.partition('.')[0]}.*"
