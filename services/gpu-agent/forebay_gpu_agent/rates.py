"""How fast counters grow, between one reading and the next."""

from __future__ import annotations


class Rates:
    """Remembers each counter's last reading. One thread at a time."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, int]] = {}

    def per_s(self, name: str, count: int | None, at: float) -> int | None:
        """Of the counter `name`, which stands at `count` at the moment `at` (seconds). None in its first reading, and after
        it was absent, began anew, or no time passed."""
        before = self._before.pop(name, None)
        if count is None:
            return None
        self._before[name] = (at, count)
        if before is None or at <= before[0] or count < before[1]:
            return None
        return round((count - before[1]) / (at - before[0]))
