"""How fast a batch goes on that is refused. Pure: time is an argument."""

from __future__ import annotations

_FIRST_S, _LAST_S = 0.5, 120.0


class Pace:
    """How many lines of one batch may be under way, and when the next may begin: half as many after each round of refusals,
    and a little more with each answer, until as many are under way as are taken."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._allowed = float(most)
        self._rounds = 0
        self._cut_at = float("-inf")
        self.not_before = float("-inf")
        """On the monotonic clock."""

    @property
    def allowed(self) -> int:
        return int(self._allowed)

    def answered(self) -> None:
        self._rounds = 0
        self._allowed = min(self._most, self._allowed + 1 / self._allowed)

    def refused(self, began: float, now: float, after_s: float | None) -> None:
        """`began`: when that line was sent. What was under way when another was refused says nothing new."""
        if began >= self._cut_at:
            self._rounds += 1
            self._allowed = max(1.0, self._allowed / 2)
        wait_s = max(after_s or 0.0, min(_LAST_S, _FIRST_S * 2 ** min(self._rounds - 1, 16)))
        self.not_before = max(self.not_before, now + wait_s)
        self._cut_at = self.not_before
