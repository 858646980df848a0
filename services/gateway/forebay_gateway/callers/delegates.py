"""Admin's calls for a user's batch: each is taken once, since two requests under one ledger id would leave one row.

Pure: time is an argument. What is taken is remembered until it would be refused anyway."""

from __future__ import annotations

from forebay.delegation import Delegation, Delegations


class Delegates:
    def __init__(self, delegations: Delegations) -> None:
        self._delegations = delegations
        self._taken: dict[bytes, int] = {}
        """Ledger id → when its delegation ends, in the order in which they came."""

    def take(self, token: str, now: float) -> Delegation | None:
        """None when it is not admin's, has ended, or was taken before."""
        self._forget(now)
        delegation = self._delegations.read(token, now)
        if delegation is None or delegation.ledger_id in self._taken:
            return None
        self._taken[delegation.ledger_id] = delegation.expires_at
        return delegation

    def _forget(self, now: float) -> None:
        """Whoever came before one that has not ended may stay a little too long, never too short."""
        while self._taken and now >= next(iter(self._taken.values())):
            del self._taken[next(iter(self._taken))]
