"""Lengths of time as people write them: `90s`, `30m`, `24h`, `7d`, `2w`. Pure."""

from __future__ import annotations

import re
from datetime import timedelta

from forebay.errors import BadInput

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d+)\s*(s|min|m|h|d|w)", re.ASCII)


def parse_duration(text: str) -> timedelta:
    """Raises BadInput."""
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None:
        raise BadInput(f"{text!r} is not a length of time: write 90s, 30m, 24h, 7d or 2w.")
    seconds = int(found[1]) * _UNITS[found[2]] if len(found[1]) < 13 else 10**13
    if seconds > 100 * 366 * 86_400:
        raise BadInput(f"{text!r} is longer than a hundred years.")
    return timedelta(seconds=seconds)
