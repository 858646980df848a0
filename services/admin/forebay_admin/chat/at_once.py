"""How much is done for one user at the same time, of what costs memory or holds a connection to the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from forebay_admin.sign_in.pace import TooOften

MOST = 6
"""As many as browsers have connections for one host."""


class AtOnce:
    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()

    @contextmanager
    def one_more(self, user_id: str) -> Iterator[None]:
        """Raises TooOften."""
        if self._taken[user_id] >= self._most:
            raise TooOften(f"{self._most} of these are under way for you: wait for one to end.", retry_after_s=1.0)
        self._taken[user_id] += 1
        try:
            yield
        finally:
            self._taken[user_id] -= 1
            if not self._taken[user_id]:
                del self._taken[user_id]
