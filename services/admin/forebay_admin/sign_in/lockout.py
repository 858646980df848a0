"""How long one waits after wrong passwords: a little after a few, longer after each more. Pure.

Counted for each account and for each address. An attempt counts as failed before its password is looked at, so that many at
once are not more than one after the other; a right password takes it back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from forebay.errors import NotPossible

FORGOTTEN = timedelta(hours=1)
"""After so long without one, failures count no more."""
LONGEST = timedelta(minutes=15)
FREE_OF_ACCOUNT, FREE_OF_ADDRESS = 5, 30
"""So many cost nothing: people mistype, and many may share an address."""
_MOST_DOUBLINGS = 16


class TooManyAttempts(NotPossible):
    """Too many wrong passwords; wait, then try again."""


@dataclass(frozen=True, slots=True)
class Failures:
    """Of one account or address."""

    number: int
    last_at: datetime
    locked_until: datetime | None = None


def wait_s(found: Failures | None, now: datetime) -> float:
    """Seconds until the next attempt is let through."""
    if found is None or found.locked_until is None or found.locked_until <= now:
        return 0.0
    # A clock that was set back must not lock anybody out for longer than the longest lock.
    return min((found.locked_until - now).total_seconds(), LONGEST.total_seconds())


def one_more(found: Failures | None, now: datetime, free: int) -> Failures:
    before = 0 if found is None or now - found.last_at > FORGOTTEN else found.number
    number = before + 1
    if number < free:
        return Failures(number, now)
    delay = min(timedelta(seconds=2 ** min(number - free, _MOST_DOUBLINGS)), LONGEST)
    return Failures(number, now, now + delay)


def one_less(found: Failures) -> Failures:
    """Of an address from which a right password came after all."""
    return Failures(max(0, found.number - 1), found.last_at)
