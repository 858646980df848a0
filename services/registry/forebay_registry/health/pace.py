"""How often engines are looked at when there are many of them: a registry has only so many looks a second to give. Pure.

A few are looked at as often as `Rhythm` says. Of many, each healthy one is looked at less often, but never less than
`most_s`: whether it serves is also told by the gateways that use it, and one that they complain of is looked at at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    looks_per_s: float = 75.0
    """At those about which nothing is in doubt, all together."""
    most_s: float = 15.0
    """Between two looks at one, however many there are."""

    @property
    def gap_s(self) -> float:
        """Between two looks that nobody waits for, at least."""
        return 0.5 / self.looks_per_s

    def rest_s(self, interval_s: float, crowd: int, jitter: float) -> float:
        """Seconds until the next look at one of `crowd`, which would be `interval_s` if it were alone. `jitter`, 0 to 1,
        moves it by a tenth either way."""
        return max(interval_s, min(self.most_s, crowd / self.looks_per_s) * (0.9 + 0.2 * jitter))

    def first_look_s(self, waiting: int, jitter: float, *, is_recalled: bool) -> float:
        """Seconds until the first look after a start, when `waiting` of them wait for theirs. One alone is looked at at
        once; a whole fleet is spread. How one is that is recalled is known: that has as long as between any two looks."""
        if waiting <= 1:
            return 0.0
        spread_s = min(self.most_s, waiting / self.looks_per_s)
        return jitter * (spread_s if is_recalled else spread_s / 3)

    def second_look_s(self, rest_s: float, crowd: int, jitter: float) -> float:
        """Seconds until the second look at one of `crowd`, which would be `rest_s`. Those that were all looked at first in a
        short time would else come in waves for ever."""
        return rest_s * (1 + 2 * jitter) / 3 if crowd > self.looks_per_s else rest_s
