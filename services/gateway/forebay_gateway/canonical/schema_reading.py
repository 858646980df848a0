"""What a JSON schema is made of: every schema in it, whether its keywords are what they must be, and where its references
lead. Pure.

It is a stranger's. So each schema in it is looked at once, by itself, and they are counted. Only references within it that
say the way (`#`, `#/…`) are followed: a name (`$anchor`) can only be found by looking everywhere, and one inside of what has
an `$id` of its own is about another document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import orjson

Json = dict[str, Any]

MOST_BYTES = 64 << 10
"""Of a schema."""
MOST_SCHEMAS = 2_000
"""In one another. A large one that people wrote has some hundreds."""
DEEPEST = 64
"""Objects and lists in one another."""
SHOWN = 60
"""Characters of a text that a reason shows."""

_TYPES = frozenset(("array", "boolean", "integer", "null", "number", "object", "string"))
_REFERRING = ("$ref", "$dynamicRef", "$recursiveRef")


class BadSchema(Exception):
    """It cannot be used to judge anything."""

    def __init__(self, path: str, why: str) -> None:
        """`path`: in the schema, such as `properties.age.type`; nothing for the whole."""
        super().__init__(f"At `{path}`: {why}" if path else f"{why[:1].upper()}{why[1:]}")
        self.path, self.why = path, why


@dataclass(frozen=True, slots=True)
class ReadSchema:
    root: Json
    is_older: bool
    """Draft 7; else 2020-12."""
    schemas: list[Json] = field(default_factory=list)
    """All that are reached, the root first, but for those that are just true or false."""
    targets: dict[str, Any] = field(default_factory=dict)
    """Reference → the schema, or the flag, that it means."""


def read_schema(raw: bytes) -> ReadSchema:
    """`raw`: a JSON object. Raises BadSchema."""
    if len(raw) > MOST_BYTES:
        raise BadSchema("", f"it has {len(raw)} bytes, and no more than {MOST_BYTES} can be checked.")
    try:
        root = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadSchema("", f"it is nested deeper than {DEEPEST} levels.") from error
    if _is_deeper(root, DEEPEST):
        raise BadSchema("", f"it is nested deeper than {DEEPEST} levels.")
    return _Reader(root).read()


def place_of(path: Iterable[Any]) -> str:
    """Keys and numbers as one would write them: `people[2].age`."""
    told = ""
    for step in path:
        told += f"[{step}]" if isinstance(step, int) else f".{str(step)[:SHOWN]}" if told else str(step)[:SHOWN]
    return told


def shown(value: Any) -> str:
    """What a reason says of it: a stranger's, so never all."""
    if isinstance(value, str):
        return repr(value) if len(value) <= SHOWN else f"{value[:SHOWN]!r}…"
    if isinstance(value, list):
        return "[…]" if value else "[]"
    if isinstance(value, dict):
        return "{…}" if value else "{}"
    return repr(value)


class _Reader:
    def __init__(self, root: Json) -> None:
        self._read = ReadSchema(root, "draft-07" in str(root.get("$schema")))
        self._shapes = _OLDER if self._read.is_older else _USUAL
        self._seen: set[int] = set()
        self._count = 1
        self._open: list[tuple[Any, tuple[Any, ...], bool]] = [(root, (), False)]
        """Schemas that are still to be read, with their place, and whether they are of another document."""

    def read(self) -> ReadSchema:
        while self._open:
            schema, path, is_foreign = self._open.pop()
            if id(schema) not in self._seen:
                self._take(schema, path, is_foreign)
        return self._read

    def _take(self, schema: Any, path: tuple[Any, ...], is_foreign: bool) -> None:
        if isinstance(schema, bool):
            return
        if not isinstance(schema, dict):
            raise BadSchema(place_of(path), f"{shown(schema)} is not valid: it must be a schema.")
        self._seen.add(id(schema))
        self._read.schemas.append(schema)
        is_foreign = is_foreign or (bool(path) and _is_document(schema))
        for name in _REFERRING:
            if name in schema:
                if not isinstance(schema[name], str):
                    raise BadSchema(
                        place_of((*path, name)), f"{shown(schema[name])} is not valid: it must be a string."
                    )
                self._follow(schema[name], (*path, name), is_foreign)
        if self._read.is_older and "$ref" in schema:
            return
        inner: list[tuple[Any, tuple[Any, ...], bool]] = []
        for name, value in schema.items():
            shape = self._shapes.get(name)
            if shape is not None:
                for found, *steps in _demand(shape, name, value, path):
                    self._count += 1
                    if self._count > MOST_SCHEMAS:
                        raise BadSchema("", f"it has more than {MOST_SCHEMAS} schemas in it: more cannot be checked.")
                    inner.append((found, (*path, name, *steps), is_foreign))
        self._open += reversed(inner)

    def _follow(self, reference: str, path: tuple[Any, ...], is_foreign: bool) -> None:
        if path[-1] != "$ref":
            raise BadSchema(place_of(path), f"`{path[-1]}` cannot be followed here; use `$ref`.")
        if not reference.startswith("#"):
            raise BadSchema(place_of(path), f"{shown(reference)} is not within the schema, and nothing is fetched.")
        if reference != "#" and not reference.startswith("#/"):
            raise BadSchema(
                place_of(path), f"{shown(reference)} is a name; only the way is followed here, such as `#/$defs/x`."
            )
        if is_foreign:
            raise BadSchema(
                place_of(path), f"{shown(reference)} is inside of what has an `$id` of its own, and cannot be followed."
            )
        if reference in self._read.targets:
            return
        found: Any = self._read.root
        way: list[Any] = []
        for step in unquote(reference[2:]).split("/", DEEPEST + 1) if reference != "#" else ():
            way.append(step.replace("~1", "/").replace("~0", "~"))
            try:
                if isinstance(found, list):
                    way[-1] = int(step) if step.isascii() and step.isdigit() and len(step) < 6 else len(found)
                found = found[way[-1]]
            except (LookupError, TypeError) as error:
                raise BadSchema(place_of(path), f"there is nothing at {shown(reference)}.") from error
            is_foreign = is_foreign or (isinstance(found, dict) and _is_document(found))
        self._read.targets[reference] = found
        self._open.insert(0, (found, tuple(way), is_foreign))


def _is_document(schema: Json) -> bool:
    id = schema.get("$id")
    return isinstance(id, str) and not id.startswith("#")


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels <= 0 or any(_is_deeper(one, levels - 1) for one in inner)


# --- what keywords must be --------------------------------------------------------------------------------------------


class _Not(Exception):
    """It must be `args[0]`."""


_Shape = Callable[[Any], Iterator[tuple[Any, ...]] | None]
"""Gives the schemas that are in it, each with the steps to it. Raises _Not."""


def _demand(shape: _Shape, name: str, value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    try:
        yield from shape(value) or ()
    except _Not as wrong:
        raise BadSchema(place_of((*path, name)), f"{shown(value)} is not valid: it must be {wrong}.") from wrong


def _one(value: Any) -> Iterator[tuple[Any, ...]]:
    yield (value,)


def _several(value: Any) -> Iterator[tuple[Any, ...]]:
    if not isinstance(value, list) or not value:
        raise _Not("a list of schemas")
    for at, one in enumerate(value):
        yield one, at


def _one_or_several(value: Any) -> Iterator[tuple[Any, ...]]:
    return _several(value) if isinstance(value, list) else _one(value)


def _named(value: Any) -> Iterator[tuple[Any, ...]]:
    if not isinstance(value, dict):
        raise _Not("an object of schemas")
    for name, one in value.items():
        yield one, name


def _dependencies(value: Any) -> Iterator[tuple[Any, ...]]:
    if not isinstance(value, dict):
        raise _Not("an object")
    for name, one in value.items():
        if isinstance(one, list):
            _names(one)
        else:
            yield one, name


def _names_by_name(value: Any) -> None:
    if not isinstance(value, dict):
        raise _Not("an object of lists of names")
    for names in value.values():
        _names(names)


def _names(value: Any) -> None:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value) or len(set(value)) < len(value):
        raise _Not("a list of names, each of them once")


def _count(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value % 1:
        raise _Not("a number of things")


def _number(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Not("a number")


def _divisor(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise _Not("a number above 0")


def _flag(value: Any) -> None:
    if not isinstance(value, bool):
        raise _Not("true or false")


def _text(value: Any) -> None:
    if not isinstance(value, str):
        raise _Not("a string")


def _list(value: Any) -> None:
    if not isinstance(value, list):
        raise _Not("a list")


def _type(value: Any) -> None:
    types = value if isinstance(value, list) else [value]
    if not types or any(not isinstance(one, str) or one not in _TYPES for one in types) or len(set(types)) < len(types):
        raise _Not(f"one of {', '.join(sorted(_TYPES))}, or a list of them")


def _by_shape(shapes: Mapping[_Shape, str]) -> Mapping[str, _Shape]:
    return {name: shape for shape, names in shapes.items() for name in names.split()}


_BOTH: Mapping[_Shape, str] = {
    _count: "minLength maxLength minItems maxItems minProperties maxProperties",
    _number: "minimum maximum exclusiveMinimum exclusiveMaximum",
    _divisor: "multipleOf",
    _flag: "uniqueItems",
    _text: "pattern $id",
    _names: "required",
    _list: "enum",
    _type: "type",
    _one: "contains additionalProperties propertyNames not if then else",
    _several: "allOf anyOf oneOf",
    _named: "properties patternProperties $defs definitions",
}
_USUAL = {
    **_by_shape(_BOTH),
    **_by_shape(
        {
            _count: "minContains maxContains",
            _one: "items unevaluatedItems unevaluatedProperties",
            _several: "prefixItems",
            _named: "dependentSchemas",
            _names_by_name: "dependentRequired",
        }
    ),
}
_OLDER = {
    **_by_shape(_BOTH),
    **_by_shape({_one_or_several: "items", _one: "additionalItems", _dependencies: "dependencies"}),
}
