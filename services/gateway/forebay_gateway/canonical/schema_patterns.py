"""The patterns of JSON schemas that can be tried without danger. Pure.

Some patterns take for ever on some texts, and Python cannot be stopped while it tries. So only plain rows are tried:
characters and sets of them, each of which may repeat, and no groups. For a row it is known beforehand in how many ways it
can be laid over a text at most. All other patterns are for the engine to keep to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

MOST_WAYS = 100_000
"""Some milliseconds, in the worst case."""
_LONGEST = 256
_LOOKED_AT = 16
"""So many characters are looked at in the time of one way."""

_SET = r"\[\^?(?:[^\\\[\]]|\\[dDwWsStnr]|\\[^\w\s])+\]"
_ATOM = rf"(?:{_SET}|\\[dDwWsStnr]|\\[^\w\s]|[^\\\[\](){{}}|*+?^$])"
_REPEAT = r"(?:[*+?]|\{\d{1,3}(?:,\d{0,3})?\})"
_ROW = re.compile(rf"(\^?)((?:{_ATOM}{_REPEAT}?)*)(\$?)", re.ASCII | re.DOTALL)
_PART = re.compile(rf"{_ATOM}({_REPEAT}?)", re.ASCII | re.DOTALL)
_OF_SETS = ("--", "&&", "~~", "||")
"""What Python may once take for operations on sets."""


@dataclass(frozen=True, slots=True)
class PlainPattern:
    compiled: re.Pattern[str]
    bounded: int
    """In how many ways those parts can repeat that have a bound."""
    unbounded: int
    """Parts without one. A beginning that may be anywhere is such a part too."""
    least: int
    """Characters that each way looks at in any case."""

    def ways(self, text: str) -> int:
        """At most so many have to be tried."""
        each = 1 + min(self.least, len(text)) // _LOOKED_AT
        return self.bounded * int((len(text) + 1) ** self.unbounded) * each

    def is_in(self, text: str) -> bool:
        return self.compiled.search(text) is not None


@lru_cache(maxsize=512)
def plain_pattern(pattern: str) -> PlainPattern | None:
    """None: nobody should try it."""
    row = _ROW.fullmatch(pattern) if len(pattern) <= _LONGEST else None
    if row is None or any(sign in pattern for sign in _OF_SETS):
        return None
    begin, parts, end = row.groups()
    bounded, unbounded, least = 1, int(not begin), 0
    for part in _PART.finditer(parts):
        most, least = _most_more(part[1]), least + _least(part[1])
        if most is None:
            unbounded += 1
        else:
            bounded *= most + 1
    try:
        # In JavaScript, whose patterns these are, the end is the very end and digits are ASCII's.
        compiled = re.compile(begin + parts + (r"\Z" if end else ""), re.ASCII)
    except re.error:
        return None
    return PlainPattern(compiled, bounded, unbounded, least)


def _least(repeat: str) -> int:
    """How many times in any case."""
    if repeat.startswith("{"):
        return int(repeat[1:-1].partition(",")[0])
    return int(repeat in ("", "+"))


def _most_more(repeat: str) -> int | None:
    """How many times more than at least. None: there is no most."""
    match repeat:
        case "":
            return 0
        case "?":
            return 1
        case "*" | "+":
            return None
    least, comma, most = repeat[1:-1].partition(",")
    if not comma:
        return 0
    return max(0, int(most) - int(least)) if most else None
