"""How many attempts may be repeated in a pool, so that a failing fleet is not also flooded by its own retries. Pure."""

from __future__ import annotations


class RetryBudget:
    """Each first attempt earns a share of a retry, up to a reserve; each retry spends one."""

    def __init__(self, share: float, reserve: int) -> None:
        self._share = share
        self._reserve = float(reserve)
        self._left = float(reserve)

    def note_first_attempt(self) -> None:
        self._left = min(self._reserve, self._left + self._share)

    def spend(self) -> bool:
        """False when nothing is left: this attempt was the last."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
