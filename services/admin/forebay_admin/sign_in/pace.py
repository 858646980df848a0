"""How often one address or user may ask: a few at once, then one every while. Pure: time is an argument. Of one replica."""

from __future__ import annotations

from collections import OrderedDict

from forebay.errors import NotPossible

_MOST_ADDRESSES = 10_000


class TooOften(NotPossible):
    """Too many requests from this address; wait, then try again."""


class Pace:
    def __init__(self, at_once: int, every_s: float) -> None:
        self._slack_s = at_once * every_s
        self._every_s = every_s
        self._free_at: OrderedDict[str, float] = OrderedDict()

    def demand(self, address: str, now: float, who: str = "this address") -> None:
        """`now`: of a clock that never goes back. `who`: as whoever asks is told. Raises TooOften."""
        free_at = max(self._free_at.pop(address, now), now)
        if free_at + self._every_s - now > self._slack_s:
            self._free_at[address] = free_at
            wait = free_at + self._every_s - now - self._slack_s
            raise TooOften(f"Too many requests from {who}: try again in {max(1, round(wait))} s.", retry_after_s=wait)
        self._free_at[address] = free_at + self._every_s
        if len(self._free_at) > _MOST_ADDRESSES:
            self._free_at.popitem(last=False)
