"""JSON schemas as clients send them, and where a document breaks one. Pure.

Both come from strangers, so all of it is bounded: how large and deep a schema may be, how much is done to judge a document,
and how much of either an error repeats. Nothing is ever fetched. Draft 2020-12, and draft 7 where a schema says so. `format`
says nothing here; `unevaluatedItems` and `unevaluatedProperties` and patterns that might take for ever (`schema_patterns`)
are for the engine to keep to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import orjson
from jsonschema import Draft7Validator, Draft202012Validator, ValidationError, validators
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT7, DRAFT202012, SchemaRegistry

from forebay_gateway.canonical.schema_patterns import MOST_WAYS, plain_pattern

MOST_BYTES = 64 << 10
"""Of a schema."""
FEW_BYTES = 2 << 10
"""A schema of so many is read in some milliseconds, the largest in half a second."""
DEEPEST = 64
"""Objects and lists in one another, in a schema; a document may be twice as deep."""
USUAL_WORK = 1_000
"""Keywords tried. Enough for nearly every answer; some milliseconds."""
MOST_WORK = 30_000
"""Enough for thousands of list items; at worst, with schemas that lead in circles, a second."""
_REMEMBERED = 64
_TOLD = 200
"""Characters of a reason that are told."""
_SHOWN = 60
"""Characters of a text from a document that a reason shows."""
_SAME_WORK = 16
"""So many members of a list are looked through in the time of one keyword."""
_WAYS = 100
"""So many ways to lay out a pattern are tried in that time."""


class BadSchema(Exception):
    """It cannot be used to judge anything."""

    def __init__(self, path: str, why: str) -> None:
        """`path`: in the schema, such as `properties.age.type`; nothing for the whole."""
        super().__init__(f"At `{path}`: {why}" if path else f"{why[:1].upper()}{why[1:]}")
        self.path, self.why = path, why


class TooMuchWork(Exception):
    """Nobody can say in this time whether a document keeps to its schema."""


@dataclass(frozen=True, slots=True)
class SchemaFault:
    path: str
    """In the document, such as `people[2].age`; nothing for the whole."""
    why: str

    def __str__(self) -> str:
        return f"at `{self.path}`: {self.why}" if self.path else self.why


class JsonSchema:
    """Use `compile_schema`."""

    def __init__(self, validator: Any) -> None:
        self._validator = validator

    def fault_in(self, document: Any, most_work: int = USUAL_WORK) -> SchemaFault | None:
        """The first one. Raises TooMuchWork."""
        token = _work.set(_Work(most_work))
        try:
            error = next(self._validator.iter_errors(_shortened(document, 2 * DEEPEST)), None)
        except (RecursionError, _TooDeep, Unresolvable, ArithmeticError, TypeError, ValueError, LookupError) as unknown:
            # A schema that leads back into itself, or a keyword with a value that only its meaning forbids.
            raise TooMuchWork from unknown
        finally:
            _work.reset(token)
        return None if error is None else SchemaFault(place_of(error.absolute_path), error.message[:_TOLD])


@lru_cache(maxsize=_REMEMBERED)
def compile_schema(raw: bytes) -> JsonSchema:
    """`raw`: a JSON object. Raises BadSchema."""
    if len(raw) > MOST_BYTES:
        raise BadSchema("", f"it has {len(raw)} bytes, and no more than {MOST_BYTES} can be checked.")
    try:
        schema = _shortened(orjson.loads(raw), DEEPEST)
    except (_TooDeep, orjson.JSONDecodeError) as error:
        raise BadSchema("", f"it is nested deeper than {DEEPEST} levels.") from error
    is_older = "draft-07" in str(schema.get("$schema"))
    kind, draft = (_Older, DRAFT7) if is_older else (_Usual, DRAFT202012)
    try:
        # Without a checker of formats: what is no pattern in Python may be one in JavaScript.
        kind.check_schema(schema, format_checker=None)
    except SchemaError as error:
        raise BadSchema(place_of(error.absolute_path), error.message[:_TOLD]) from error
    registry: SchemaRegistry = Registry()
    resolver = registry.resolver_with_root(draft.create_resource(schema))
    for path, ref in _refs(schema, ""):
        try:
            if not ref.startswith("#"):
                raise BadSchema(path, f"{ref[:_SHOWN]!r} is not within the schema, and nothing is fetched.")
            resolver.lookup(ref)
        except Unresolvable as error:
            raise BadSchema(path, f"there is nothing at {ref[:_SHOWN]!r}.") from error
    return JsonSchema(kind(schema, registry=registry))


def place_of(path: Iterable[Any]) -> str:
    """Keys and numbers as one would write them: `people[2].age`."""
    told = ""
    for step in path:
        told += f"[{step}]" if isinstance(step, int) else f".{str(step)[:_SHOWN]}" if told else str(step)[:_SHOWN]
    return told


# --- what is bounded --------------------------------------------------------------------------------------------------


class _Work:
    def __init__(self, most: int) -> None:
        self._left = most

    def do(self, work: int) -> None:
        self._left -= work
        if self._left < 0:
            raise TooMuchWork


_work: ContextVar[_Work] = ContextVar("work")


class _TooDeep(Exception):
    """Deeper than anyone writes."""


# The library's errors repeat what they are about, with all that is in it, also where nobody reads them.
class _Text(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return str.__repr__(str(self[:_SHOWN])) + "…"


class _List(list[Any]):
    def __repr__(self) -> str:
        return "[…]" if self else "[]"


class _Object(dict[str, Any]):
    def __repr__(self) -> str:
        return "{…}" if self else "{}"


def _shortened(value: Any, deepest: int) -> Any:
    """The same, with short names for what is long. Raises _TooDeep."""
    if isinstance(value, str):
        return _Text(value) if len(value) > _SHOWN else value
    if not isinstance(value, dict | list):
        return value
    if deepest <= 0:
        raise _TooDeep
    if isinstance(value, dict):
        return _Object({name: _shortened(inner, deepest - 1) for name, inner in value.items()})
    return _List([_shortened(inner, deepest - 1) for inner in value])


_HOLDING = frozenset(
    ("items", "additionalItems", "contains", "additionalProperties", "propertyNames", "not", "if", "then", "else")
)
_LISTING = frozenset(("allOf", "anyOf", "oneOf", "prefixItems", "items"))
_NAMING = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"))


def _refs(schema: Any, path: str) -> Iterator[tuple[str, str]]:
    """(path, reference) of each, where a reference is one and no mere name. One inside of what has an `$id` of its own is
    relative to that, and is left to whoever follows it."""
    if not isinstance(schema, dict) or (path and "$id" in schema):
        return
    for name, value in schema.items():
        here = f"{path}.{name}" if path else name
        if name in ("$ref", "$dynamicRef") and isinstance(value, str):
            yield here, value
        if name in _HOLDING:
            yield from _refs(value, here)
        if name in _LISTING and isinstance(value, list):
            for number, inner in enumerate(value):
                yield from _refs(inner, f"{here}[{number}]")
        if name in _NAMING and isinstance(value, dict):
            for key, inner in value.items():
                yield from _refs(inner, f"{here}.{key}")


# --- keywords ---------------------------------------------------------------------------------------------------------

_Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]


def _counted(keyword: _Keyword, validator: Any, value: Any, instance: Any, schema: Any) -> Any:
    work = 1
    if isinstance(instance, dict | list):
        work += len(instance) // _SAME_WORK
    if isinstance(value, dict | list):
        work += len(value) // _SAME_WORK
    _work.get().do(work)
    return keyword(validator, value, instance, schema)


def _any_of(validator: Any, any_of: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Tells the fault of the alternative that fits furthest."""
    furthest: ValidationError | None = None
    for number, alternative in enumerate(any_of):
        error = next(validator.descend(instance, alternative, schema_path=number), None)
        if error is None:
            return
        if furthest is None or len(error.path) > len(furthest.path):
            furthest = error
    if furthest is not None and furthest.path:
        yield furthest
    else:
        yield ValidationError(f"{instance!r} is none of what it can be")


def _one_of(validator: Any, one_of: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    fitting = sum(next(validator.descend(instance, one), None) is None for one in one_of)
    if fitting > 1:
        yield ValidationError(f"{instance!r} is {fitting} of the things of which it can be one")
    elif not fitting:
        yield from _any_of(validator, one_of, instance, schema)


def _pattern(validator: Any, pattern: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and _is_in(pattern, instance) is False:
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for pattern, inner in patterns.items():
            for name, value in instance.items():
                if _is_in(pattern, name):
                    yield from validator.descend(value, inner, path=name, schema_path=pattern)


def _additional_properties(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """What may be meant by a pattern that nobody tries is not one too many."""
    if not isinstance(instance, dict):
        return
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, value in instance.items():
        if name in named or any(_is_in(pattern, name) is not False for pattern in patterns):
            continue
        if allowed is False:
            yield ValidationError(f"{name[:_SHOWN]!r} is not among the properties that it may have")
        else:
            yield from validator.descend(value, allowed, path=name)


def _unique_items(validator: Any, is_wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if is_wanted and isinstance(instance, list) and len({_identity(item) for item in instance}) < len(instance):
        yield ValidationError(f"{instance!r} has the same item twice")


def _left_to_the_engine(validator: Any, value: Any, instance: Any, schema: Any) -> None:
    return None


def _is_in(pattern: str, text: str) -> bool | None:
    """None: nobody tries."""
    plain = plain_pattern(pattern)
    if plain is None or (ways := plain.ways(text)) > MOST_WAYS:
        return None
    _work.get().do(ways // _WAYS)
    return plain.is_in(text)


def _identity(value: Any) -> Any:
    """Alike for what is the same in JSON, where 1 is 1.0 and not true."""
    _work.get().do(1)
    if isinstance(value, dict):
        return frozenset((name, _identity(inner)) for name, inner in value.items())
    if isinstance(value, list):
        return tuple(_identity(inner) for inner in value)
    return (bool, value) if isinstance(value, bool) else value


_OWN: Mapping[str, _Keyword] = {
    "anyOf": _any_of,
    "oneOf": _one_of,
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
    "unevaluatedItems": _left_to_the_engine,
    "unevaluatedProperties": _left_to_the_engine,
}


def _bounded(validator: Any) -> Any:
    known = dict(validator.VALIDATORS)
    known |= {name: keyword for name, keyword in _OWN.items() if name in known}
    counted = {name: partial(_counted, keyword) for name, keyword in known.items()}
    return validators.extend(validator, counted)  # type: ignore[no-untyped-call]


_Usual, _Older = _bounded(Draft202012Validator), _bounded(Draft7Validator)
