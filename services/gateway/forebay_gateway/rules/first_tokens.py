"""How soon each model has lately begun to answer, as this gateway's requests saw it: waiting for a slot, and reading the
prompt. Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_WEIGHT = 0.2  # of a new sample: ten requests forget most of what was before
_KEPT_S = 600.0
"""What was seen longer ago says nothing of now."""


@dataclass(slots=True)
class _Seen:
    seconds: float
    at: float


class FirstTokens:
    """Only models that some backend has are ever noted, which bounds the table."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], _Seen] = {}

    def note(self, pool: str, model: str, seconds: float, now: float) -> None:
        seen = self._seen.get((pool, model))
        if seen is None or now - seen.at > _KEPT_S:
            self._seen[pool, model] = _Seen(seconds, now)
        else:
            seen.seconds += _WEIGHT * (seconds - seen.seconds)
            seen.at = now

    def expected_s(self, pool: str, model: str, now: float) -> float | None:
        """None: nothing was seen of it lately."""
        seen = self._seen.get((pool, model))
        return seen.seconds if seen is not None and now - seen.at <= _KEPT_S else None

    def lately(self, now: float) -> Iterator[tuple[str, str, float]]:
        """(pool, model, seconds)."""
        for (pool, model), seen in self._seen.items():
            if now - seen.at <= _KEPT_S:
                yield pool, model, seen.seconds
