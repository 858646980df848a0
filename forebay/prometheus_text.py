"""The Prometheus text format, read: which values an engine's /metrics page tells. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator


def read_samples(text: str) -> Iterator[tuple[str, float]]:
    """(name, value) of each sample, labels left out; of what is not a number from zero on, nothing."""
    for line in text.splitlines():
        if not line or line[0] == "#":
            continue
        name, brace, rest = line.partition("{")
        # A label's value may hold a brace or a blank, never a bare quote followed by `} `.
        after = rest.rpartition("}")[2] if brace else line.partition(" ")[2]
        if not brace:
            name = line.partition(" ")[0]
        words = after.split()
        try:
            value = float(words[0]) if words else math.nan
        except ValueError:
            continue
        if math.isfinite(value) and value >= 0:
            yield name, value
