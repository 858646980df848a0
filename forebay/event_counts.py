"""Events of the same sort counted together, until somebody takes what there is. Pure.

So many sorts are told apart at once at most; of more, what is particular about them is left out. Of one address so many
names are, which are whatever somebody wrote; and after a flood what comes next is taken a minute later, so that it fills
nobody's table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

MOST_TOLD_APART = 400
MOST_NAMES = 10
"""Of keys that nobody has shown to be theirs, from one address."""
FLOOD = 200
FLOOD_S = 60.0


@dataclass(frozen=True, slots=True)
class Sort:
    kind: str
    reason: str
    address: str = ""
    key_id: str = ""
    user: str = ""


@dataclass(slots=True)
class Count:
    first: float
    """Seconds since the epoch; likewise the last."""
    last: float
    number: int = 0


class EventCounts:
    def __init__(self, most: int = MOST_TOLD_APART) -> None:
        self._most = most
        self._counts: dict[Sort, Count] = {}
        self._names: Counter[Sort] = Counter()
        self._again_at = 0.0

    def __len__(self) -> int:
        return len(self._counts)

    def note(self, sort: Sort, now: float) -> None:
        count = self._counts.get(sort)
        is_named = bool(sort.key_id and not sort.user)
        if count is None and is_named and self._names[nameless := replace(sort, key_id="")] >= MOST_NAMES:
            sort, count, is_named = nameless, self._counts.get(nameless), False
        if count is None and len(self._counts) >= self._most:
            sort, is_named = Sort(sort.kind, sort.reason), False
            count = self._counts.get(sort)
        if count is None:
            count = self._counts[sort] = Count(now, now)
            if is_named:
                self._names[replace(sort, key_id="")] += 1
        count.last = now
        count.number += 1

    def take(self, at: float) -> Mapping[Sort, Count]:
        """What there is; nothing yet for a while after a flood. `at`: on a clock that never goes back."""
        if at < self._again_at:
            return {}
        counts, self._counts = self._counts, {}
        self._names.clear()
        self._again_at = at + FLOOD_S if len(counts) >= FLOOD else at
        return counts
