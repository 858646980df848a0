"""How long a request will wait: what it is told when it is refused, and what it may count on. Pure.

Only time in which something waits counts: an idle hour says nothing about how fast a full queue drains."""

from __future__ import annotations

import math

from forebay_scheduler.fairness.fair_queue import Standing
from forebay_scheduler.request import UserId

LONGEST_S = 120.0
"""Clients that are told more than this give up or ignore it."""
SHORTEST_S = 1.0
UNKNOWN_S = 10.0
"""Said before anything is known: about the length of one answer."""
_MEMORY_S = 30.0
"""What is older than this counts for less than 37 %."""
_KNOWN_AFTER_S = 1.0
_NEWEST = 0.05
_LARGEST_KEEPS = 0.999
_SPREAD = 2.0
"""The last of those who are told to come back is told so many times what the first is: the queue has moved on by then."""
_MANY_USERS = 256


class Throughput:
    """Cost that ends per second of waiting, an average that forgets exponentially; and what one request costs."""

    __slots__ = ("_milli", "_seconds", "largest", "mean")

    def __init__(self) -> None:
        self._milli = 0.0
        self._seconds = 0.0
        self.mean = 0.0
        """Milli-tokens of one request, lately; 0 before anything has ended."""
        self.largest = 0.0
        """The most that one has cost, forgotten slowly."""

    def note_time(self, seconds: float) -> None:
        """So long something has waited. A clock that went back has told nothing."""
        if seconds <= 0.0:
            return
        keep = math.exp(-seconds / _MEMORY_S)
        self._milli *= keep
        self._seconds = self._seconds * keep + _MEMORY_S * (1.0 - keep)

    def note_cost(self, cost: int) -> None:
        """So many milli-tokens were settled (or started) while something waited."""
        self._milli += cost
        self.mean = float(cost) if not self.mean else self.mean + _NEWEST * (cost - self.mean)
        self.largest = max(float(cost), self.largest * _LARGEST_KEEPS)

    @property
    def tokens_per_s(self) -> float | None:
        """None before anything is known."""
        if self._seconds < _KNOWN_AFTER_S:
            return None
        return self._milli / 1000.0 / self._seconds


def predicted_wait_s(standing: Standing, cost: float, rate: float | None) -> float | None:
    """Until a request starts that stands there, if it and those before it in its line cost so many milli-tokens each.

    `rate` is the pool's, in tokens per second. None when that is not known, infinite when nothing moves."""
    if rate is None:
        return None
    if rate <= 0.0:
        return math.inf
    own = (standing.place - 1) * cost / 1000.0
    return (standing.others_first + own / standing.share) / rate


def wait_for_one_s(standing: Standing, cost: float, rate: float | None) -> float:
    """By how much later the next of its line starts; 0 when that is not known."""
    return cost / 1000.0 / (standing.share * rate) if rate else 0.0


def longest_wait_s(
    standing: Standing, largest_cost: float, rate: float, window: float = 0.0, misjudged_tokens: float = 0.0
) -> float:
    """The bound: the k-th of a line starts within (k·c + 2·(Q + c + Σ D·ε)) / (share · R), and what runs must end first.

    `largest_cost` (c) in milli-tokens; `window` (Q) in tokens of weight one; `misjudged_tokens` is by how much the requests
    that run together may cost more or less than was reserved (Σ D·ε). It holds while the share does: newcomers shrink it."""
    if rate <= 0.0:
        return math.inf
    largest = largest_cost / 1000.0
    slack = 2.0 * (window + largest + misjudged_tokens)
    return (standing.place * largest + slack) / (standing.share * rate)


def retry_after_s(predicted_s: float | None) -> float:
    """What a client is told, within 1 and 120 s."""
    if predicted_s is None:
        return UNKNOWN_S
    return max(SHORTEST_S, min(LONGEST_S, predicted_s))


class Returns:
    """When each of those who found no room is told to come back: the first when a place is worth asking for, each one after
    it a place later, until a queue's length has been told. Told the same, all would come at once, and most in vain."""

    __slots__ = ("_last_at", "_prune_at")

    def __init__(self) -> None:
        self._last_at: dict[UserId, float] = {}
        """For when the last one was told to come, in seconds of the clock that `now` is of."""
        self._prune_at = _MANY_USERS

    def after_s(self, user: UserId, predicted_s: float | None, one_s: float, now: float) -> float:
        """Never less than what one that joined the queue now would wait, within 1 and 120 s. `one_s`: see wait_for_one_s."""
        soonest_s = retry_after_s(predicted_s)
        after_s = max(soonest_s, self._last_at.get(user, -math.inf) + one_s - now)
        if after_s > min(_SPREAD * soonest_s, LONGEST_S):
            after_s = soonest_s
        self._last_at[user] = now + after_s
        if len(self._last_at) > self._prune_at:
            self._last_at = {whose: at for whose, at in self._last_at.items() if at > now}
            self._prune_at = max(_MANY_USERS, 2 * len(self._last_at))
        return after_s
