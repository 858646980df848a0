"""Which parts of a budget, or of what was paid in advance, are used up that somebody wants to hear of. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from forebay.errors import BadInput

USUAL: tuple[int, ...] = (50, 80, 100)
"""Percent of a budget, where nobody said otherwise."""
MOST = 20
_HIGHEST = 1000
LOW: tuple[int, ...] = (20, 5, 0)
"""Percent of the newest top-up that are left of a balance."""


def demand_percents(percents: Iterable[int]) -> tuple[int, ...]:
    """Each once, the lowest first; none is nothing to be told. Raises BadInput."""
    found = tuple(sorted(set(percents)))
    if len(found) > MOST:
        raise BadInput(f"At most {MOST} thresholds of a budget are told.")
    for percent in found:
        if not 1 <= percent <= _HIGHEST:
            raise BadInput(f"A threshold is from 1 to {_HIGHEST} percent of a budget, and {percent} is not.")
    return found


def reached(spent: int, amount: int, percents: Sequence[int]) -> list[int]:
    """Those of `percents` that so much of so much is."""
    return [percent for percent in percents if spent * 100 >= amount * percent]


def low(left: int, topped_up: int, percents: Sequence[int] = LOW) -> list[int]:
    """Those of `percents` of the newest top-up of which no more is left."""
    return [percent for percent in percents if left * 100 <= topped_up * percent]
