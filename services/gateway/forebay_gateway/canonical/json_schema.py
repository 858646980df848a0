"""JSON schemas as clients send them, and where a document breaks one. Pure.

Both come from strangers, so all of it is bounded: how large and deep a schema may be (`schema_reading`), how much is done to
judge a document, and how much of either an error repeats. Nothing is ever fetched. Draft 2020-12, and draft 7 where a schema
says so. `format` says nothing here; `unevaluatedItems` and `unevaluatedProperties` and patterns that might take for ever
(`schema_patterns`) are for the engine to keep to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from forebay_gateway.canonical.schema_judge import Judge, Keyword, TooMuchWork, WorkLeft, identity
from forebay_gateway.canonical.schema_keywords import OLDER, USUAL
from forebay_gateway.canonical.schema_reading import BadSchema, ReadSchema, place_of, read_schema

__all__ = [
    "FEW_BYTES",
    "MOST_WORK",
    "USUAL_WORK",
    "BadSchema",
    "JsonSchema",
    "SchemaFault",
    "TooMuchWork",
    "compile_schema",
]

FEW_BYTES = 2 << 10
"""A schema of so many is read in a millisecond or two."""
USUAL_WORK = 5_000
"""Some microseconds each. Enough for nearly every answer."""
MOST_WORK = 100_000
"""Enough for thousands of list items."""
_REMEMBERED = 64
_TOLD = 200
"""Characters of a reason that are told."""


@dataclass(frozen=True, slots=True)
class SchemaFault:
    path: str
    """In the document, such as `people[2].age`; nothing for the whole."""
    why: str

    def __str__(self) -> str:
        return f"at `{self.path}`: {self.why}" if self.path else self.why


class JsonSchema:
    """Use `compile_schema`."""

    def __init__(self, read: ReadSchema) -> None:
        self._read = read
        table = OLDER if read.is_older else USUAL
        self._steps = {id(schema): _steps_of(schema, table, read.is_older) for schema in read.schemas}
        self._alike = {
            id(values): frozenset(identity(value) for value in values)
            for schema in read.schemas
            if isinstance(values := schema.get("enum"), list)
        }

    def fault_in(self, document: Any, most_work: int = USUAL_WORK) -> SchemaFault | None:
        """The first one. Raises TooMuchWork."""
        judge = Judge(self._steps, self._read.targets, self._alike, WorkLeft(most_work))
        try:
            found = judge.fault_in(document, self._read.root)
        except (RecursionError, ArithmeticError, TypeError, ValueError) as unknown:
            # A schema that leads back into itself, or a document that is deeper than anyone writes.
            raise TooMuchWork from unknown
        return None if found is None else SchemaFault(place_of(reversed(found.steps)), found.why[:_TOLD])


@lru_cache(maxsize=_REMEMBERED)
def compile_schema(raw: bytes) -> JsonSchema:
    """`raw`: a JSON object. Raises BadSchema."""
    return JsonSchema(read_schema(raw))


def _steps_of(schema: Any, table: Mapping[str, Keyword], is_older: bool) -> tuple[tuple[Keyword, Any], ...]:
    if is_older and "$ref" in schema:
        return ((table["$ref"], schema["$ref"]),)
    return tuple((table[name], value) for name, value in schema.items() if name in table)
