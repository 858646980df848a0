"""Weights: shares against siblings, in thousandths, so that they are whole numbers everywhere."""

from __future__ import annotations

from forebay.errors import BadInput

ONE = 1000
MOST = 1_000_000
"""A thousand. More says nothing that two levels of groups do not say better."""


def demand_weight(milli: int) -> int:
    """Raises BadInput for what is no share: of nothing nobody is ever served, and a share cannot be less than nothing."""
    if milli <= 0:
        raise BadInput("A weight is more than 0; to hold somebody's requests back, pause them.")
    if milli > MOST:
        raise BadInput(f"A weight is at most {MOST // ONE}.")
    return milli
