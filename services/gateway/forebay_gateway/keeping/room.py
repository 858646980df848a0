"""How much one request may still bring in that did not come with it."""

from __future__ import annotations

from collections.abc import Callable

from forebay_gateway.refused import BodyTooLarge

Hold = Callable[[int], None]
"""Takes so many bytes more from the budget. Raises Refused."""


class Room:
    def __init__(self, most_bytes: int, hold: Hold, what: str, taken: int = 0) -> None:
        """`what`: shares the room, in the plural and at the beginning of a sentence; `taken`: what it has from the start."""
        self._most, self._hold, self._what = most_bytes, hold, what
        self._taken = taken

    @property
    def left(self) -> int:
        return max(0, self._most - self._taken)

    def take(self, size: int) -> None:
        """Raises BodyTooLarge, Refused."""
        if size > self.left:
            raise BodyTooLarge(
                f"{self._what} have more than {self._most} bytes together, the most that this gateway takes for one request."
            )
        self.hold(size)
        self._taken += size

    def hold(self, size: int) -> None:
        """What is made of what is there, and has no share of the room. Raises Refused."""
        self._hold(size)
