"""One document is judged by a schema: what the keywords (`schema_keywords`) are given. Pure.

Every step is counted, and one that looks through a list or a text, or that compares, counts as many as it takes that time
for. A step takes about a microsecond."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from forebay_gateway.canonical.schema_patterns import MOST_WAYS, PlainPattern, plain_pattern
from forebay_gateway.canonical.schema_reading import shown

_LOOKED_THROUGH = 16
"""So many members of a list are looked through in the time of one step."""
_WAYS = 32
"""So many ways to lay out a pattern are tried in that time."""
_CHARACTERS = 1_024
"""So many of a text are compared in that time."""
_WRITTEN = 128
"""So many of one are written as JSON in that time."""
_NEW_PATTERN = 100
"""Steps, to read one."""


class TooMuchWork(Exception):
    """Nobody can say in this time whether a document keeps to its schema."""


class WorkLeft:
    __slots__ = ("left",)

    def __init__(self, most: int) -> None:
        self.left = most

    def do(self, work: int) -> None:
        self.left -= work
        if self.left < 0:
            raise TooMuchWork


@dataclass(slots=True)
class Found:
    why: str
    steps: list[Any] = field(default_factory=list)
    """To the place in the document, the last one first."""


Keyword = Callable[["Judge", Any, Any, Any], Found | None]
Steps = Mapping[int, tuple[tuple[Keyword, Any], ...]]


class Judge:
    """Of one document."""

    def __init__(
        self, steps: Steps, targets: Mapping[str, Any], alike: Mapping[int, frozenset[str]], work: WorkLeft
    ) -> None:
        """`steps`: what to do, by the `id` of a schema. `alike`: the identities of what is in an `enum`, by its `id`."""
        self._steps, self.targets, self.alike, self.work = steps, targets, alike, work
        self._patterns: dict[str, PlainPattern | None] = {}

    def fault_in(self, value: Any, schema: Any) -> Found | None:
        """Raises TooMuchWork."""
        work = self.work
        work.do(1)
        if schema is True:
            return None
        if schema is False:
            return Found(f"{shown(value)} is not allowed here")
        for keyword, said in self._steps[id(schema)]:
            work.do(1)
            found = keyword(self, said, value, schema)
            if found is not None:
                return found
        return None

    def fault_at(self, step: Any, value: Any, schema: Any) -> Found | None:
        found = self.fault_in(value, schema)
        if found is not None:
            found.steps.append(step)
        return found

    def look_through(self, many: Any) -> None:
        self.work.do(len(many) // _LOOKED_THROUGH)

    def is_in(self, pattern: str, text: str) -> bool | None:
        """None: nobody tries."""
        if pattern not in self._patterns:
            self.work.do(_NEW_PATTERN)
            self._patterns[pattern] = plain_pattern(pattern)
        plain = self._patterns[pattern]
        if plain is None or (ways := plain.ways(text)) > MOST_WAYS:
            return None
        self.work.do(1 + ways // _WAYS)
        return plain.is_in(text)

    def identity(self, value: Any) -> str:
        return identity(value, self.work)


def identity(value: Any, work: WorkLeft | None = None) -> str:
    """Alike for what is the same in JSON, where 1 is 1.0 and not true. A text: Python gives away in which order it keeps
    numbers and lists, so somebody could choose them to collide."""
    if isinstance(value, str):
        if work is not None:
            work.do(1 + len(value) // _CHARACTERS)
        return f'"{value}'
    return orjson.dumps(_with_whole_numbers(value, work), option=orjson.OPT_SORT_KEYS).decode()


def _with_whole_numbers(value: Any, work: WorkLeft | None) -> Any:
    if work is not None:
        work.do(1 + (len(value) // _WRITTEN if isinstance(value, str) else 0))
    if isinstance(value, dict):
        if work is not None:
            work.do(sum(map(len, value)) // _WRITTEN + len(value))
        return {name: _with_whole_numbers(inner, work) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_whole_numbers(inner, work) for inner in value]
    return int(value) if isinstance(value, float) and abs(value) < 1 << 63 and value.is_integer() else value
