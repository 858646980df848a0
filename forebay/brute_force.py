"""When somebody who tries key after key, or password after password, is banned, and for how long. Pure.

So many addresses are counted at once at most: of more, those that failed longest ago are forgotten, so that a flood of
addresses costs no memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

MOST_COUNTED = 10_000
FORGOTTEN_S = 86_400.0
"""So long after a ban has ended the next one is a first one again."""
_MOST_DOUBLINGS = 24


@dataclass(frozen=True, slots=True)
class BanPolicy:
    after: int = 30
    """Failures from one address; 0: nobody is banned for them."""
    window_s: int = 60
    """Within so long."""
    first_s: int = 60
    longest_s: int = 3600

    def lasts_s(self, strikes: int) -> float:
        """Of which ban in a row it is: twice as long each time."""
        return float(min(self.longest_s, self.first_s * 2 ** min(max(0, strikes - 1), _MOST_DOUBLINGS)))


class Failures:
    def __init__(self, most: int = MOST_COUNTED) -> None:
        self._most = most
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """Address → since when, and how many."""

    def __len__(self) -> int:
        return len(self._counts)

    def note(self, address: str, now: float, policy: BanPolicy, times: int = 1) -> int:
        """`now`: on a clock that never goes back. Gives the number that is too many, and counts anew from then on; 0: it is
        not yet."""
        if not policy.after:
            return 0
        since, count = self._counts.pop(address, (now, 0))
        if now - since > policy.window_s:
            since, count = now, 0
        count += times
        if count >= policy.after:
            return count
        if len(self._counts) >= self._most:
            self._counts.popitem(last=False)
        self._counts[address] = since, count
        return 0

    def forget(self, address: str) -> None:
        """Somebody else has seen to it."""
        self._counts.pop(address, None)


class Strikes:
    """Which ban in a row an address gets, where nobody else tells."""

    def __init__(self, most: int = MOST_COUNTED) -> None:
        self._most = most
        self._known: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """Address → which it was, and when it ends."""

    def next(self, address: str, now: float, policy: BanPolicy) -> tuple[int, float]:
        """Which it is now, and when it ends."""
        before, ended = self._known.pop(address, (0, now))
        strikes = next_strike(before, ended, now)
        until = now + policy.lasts_s(strikes)
        if len(self._known) >= self._most:
            self._known.popitem(last=False)
        self._known[address] = strikes, until
        return strikes, until


def next_strike(before: int, ended: float, now: float) -> int:
    """`before`: which the last one was, 0 for none; `ended`: when that one ended, or will."""
    return before + 1 if before and now - ended <= FORGOTTEN_S else 1
