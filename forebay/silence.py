"""When an agent counts as silent: the registry decides by it, and operators are shown the same."""

from __future__ import annotations

AGENTS_INTERVAL_S = 2.0
"""Of an agent that does not say."""
AT_LEAST_S = 15.0
"""A moment without network is no silence."""
INTERVALS = 2.5


def silent_after_s(interval_s: float | None) -> float:
    """Seconds since its last sample, for an agent that promised one every `interval_s`."""
    return max(AT_LEAST_S, INTERVALS * (interval_s or AGENTS_INTERVAL_S))
