"""What a model thought, on its way through a client that keeps it between two turns and is not to read it."""

from __future__ import annotations

from typing import Protocol


class Thoughts(Protocol):
    """Of one user: what was concealed for another cannot be revealed."""

    def conceal(self, text: str) -> str:
        """As the client gets it: visible ASCII characters."""
        ...

    def reveal(self, concealed: str) -> str | None:
        """None when it was not concealed here, or for somebody else, or was changed since."""
        ...
