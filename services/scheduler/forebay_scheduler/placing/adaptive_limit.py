"""How much an engine takes at once where nobody said: found by trying. Pure.

Time to first token shows when requests queue inside the engine; total time does not, because answers differ in length. So
what counts is the excess: the seconds to the first token above what the prompt itself should take. Up by a step while it is
in full use and hardly any first token is late, down by a tenth when many are (AIMD; Netflix' concurrency limits are the
ancestor). It doubles until it first meets resistance. Where it is not in use, nothing is learnt and nothing changes."""

from __future__ import annotations

LATE_S = 0.3
"""A first token with this much excess is late."""
WINDOW_S = 2.0
MANY = 0.3
FEW = 0.1
DOWN = 0.95
PROBING = 1.5
PROBED = 0.75
IN_USE = 0.8


class AdaptiveLimit:
    __slots__ = (
        "_busiest",
        "_is_probing",
        "_late",
        "_rests_until",
        "_seen",
        "_waiting_samples",
        "_window_end",
        "found",
        "most",
    )

    def __init__(self, most: int, first: float = 4.0, found: float | None = None) -> None:
        """`most` is never exceeded. `found` is where an earlier leader left it."""
        self.most = max(1, most)
        self.found = min(float(self.most), max(1.0, first if found is None else found))
        self._is_probing = found is None
        self._window_end = float("-inf")
        self._seen = 0
        self._late = 0
        self._busiest = 0
        self._rests_until = float("-inf")
        self._waiting_samples = 0

    @property
    def slots(self) -> int:
        return max(1, int(self.found))

    def limit_to(self, most: int) -> None:
        self.most = max(1, most)
        self.found = min(self.found, float(self.most))

    def note_use(self, used: int) -> None:
        if used > self._busiest:
            self._busiest = used

    def first_token(self, excess_s: float, now: float) -> bool:
        """True when the limit changed."""
        self._seen += 1
        if excess_s > LATE_S:
            self._late += 1
        if now < self._window_end:
            return False
        return self._close_window(now)

    def refused(self, now: float) -> bool:
        """The engine said that it is busy."""
        return self._lower(now)

    def engine_waits(self, waiting: int, now: float) -> bool:
        """Its own count of requests that wait inside it, as sampled. One sample may be chance."""
        self._waiting_samples = self._waiting_samples + 1 if waiting > 0 else 0
        return self._waiting_samples >= 2 and self._lower(now)

    def _close_window(self, now: float) -> bool:
        seen, late, busiest = self._seen, self._late, self._busiest
        self._seen = self._late = self._busiest = 0
        self._window_end = now + WINDOW_S
        if late > MANY * seen:
            return self._lower(now)
        if (
            late <= FEW * seen
            and busiest >= IN_USE * self.slots
            and now >= self._rests_until
            and self.found < self.most
        ):
            self.found = min(float(self.most), self.found * PROBING if self._is_probing else self.found + 1.0)
            return True
        return False

    def _lower(self, now: float) -> bool:
        """Once in a while only: what is running now was let in under the limit before."""
        if now < self._rests_until:
            return False
        was = self.slots
        self.found = max(1.0, self.found * (PROBED if self._is_probing else DOWN))
        self._is_probing = False
        self._rests_until = now + WINDOW_S
        self._window_end = now + WINDOW_S
        self._seen = self._late = 0
        return self.slots != was
