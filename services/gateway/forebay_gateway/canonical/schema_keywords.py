"""What each keyword of a JSON schema says of a document. Pure.

The schema has been read by `schema_reading`: keywords are what they must be, references lead somewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from forebay_gateway.canonical.schema_judge import Found, Judge, Keyword
from forebay_gateway.canonical.schema_reading import shown

# --- any value --------------------------------------------------------------------------------------------------------


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "array": lambda value: isinstance(value, list),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
    "null": lambda value: value is None,
    "number": _is_number,
    "object": lambda value: isinstance(value, dict),
    "string": lambda value: isinstance(value, str),
}


def _type(judge: Judge, types: Any, value: Any, schema: Any) -> Found | None:
    kinds = types if isinstance(types, list) else [types]
    if any(_KINDS[kind](value) for kind in kinds):
        return None
    return Found(f"{shown(value)} is not of type {', '.join(map(repr, kinds))}")


def _enum(judge: Judge, allowed: Any, value: Any, schema: Any) -> Found | None:
    if judge.identity(value) in judge.alike[id(allowed)]:
        return None
    return Found(f"{shown(value)} is not one of {shown(allowed)}")


def _const(judge: Judge, wanted: Any, value: Any, schema: Any) -> Found | None:
    is_alike = type(wanted) is type(value) or (_is_number(wanted) and _is_number(value))
    if is_alike and judge.identity(wanted) == judge.identity(value):
        return None
    return Found(f"{shown(wanted)} was expected")


def _ref(judge: Judge, reference: Any, value: Any, schema: Any) -> Found | None:
    return judge.fault_in(value, judge.targets[reference])


def _all_of(judge: Judge, schemas: Any, value: Any, schema: Any) -> Found | None:
    for one in schemas:
        found = judge.fault_in(value, one)
        if found is not None:
            return found
    return None


def _any_of(judge: Judge, schemas: Any, value: Any, schema: Any) -> Found | None:
    """Tells the fault of the alternative that fits furthest."""
    furthest: Found | None = None
    for one in schemas:
        found = judge.fault_in(value, one)
        if found is None:
            return None
        if furthest is None or len(found.steps) > len(furthest.steps):
            furthest = found
    if furthest is not None and furthest.steps:
        return furthest
    return Found(f"{shown(value)} is none of what it can be")


def _one_of(judge: Judge, schemas: Any, value: Any, schema: Any) -> Found | None:
    fitting = sum(judge.fault_in(value, one) is None for one in schemas)
    if fitting > 1:
        return Found(f"{shown(value)} is {fitting} of the things of which it can be one")
    return None if fitting else _any_of(judge, schemas, value, schema)


def _not(judge: Judge, unwanted: Any, value: Any, schema: Any) -> Found | None:
    return Found(f"{shown(value)} is what it must not be") if judge.fault_in(value, unwanted) is None else None


def _if(judge: Judge, condition: Any, value: Any, schema: Any) -> Found | None:
    which = "then" if judge.fault_in(value, condition) is None else "else"
    return judge.fault_in(value, schema.get(which, True))


# --- numbers and texts ------------------------------------------------------------------------------------------------


def _minimum(judge: Judge, least: Any, value: Any, schema: Any) -> Found | None:
    return Found(f"{value} is less than the minimum of {least}") if _is_number(value) and value < least else None


def _maximum(judge: Judge, most: Any, value: Any, schema: Any) -> Found | None:
    return Found(f"{value} is greater than the maximum of {most}") if _is_number(value) and value > most else None


def _exclusive_minimum(judge: Judge, below: Any, value: Any, schema: Any) -> Found | None:
    return Found(f"{value} is not greater than {below}") if _is_number(value) and value <= below else None


def _exclusive_maximum(judge: Judge, above: Any, value: Any, schema: Any) -> Found | None:
    return Found(f"{value} is not less than {above}") if _is_number(value) and value >= above else None


def _multiple_of(judge: Judge, unit: Any, value: Any, schema: Any) -> Found | None:
    if not _is_number(value):
        return None
    if isinstance(unit, int):
        is_multiple = value % unit == 0
    else:
        try:
            is_multiple = (value / unit).is_integer()  # 0.3 is a multiple of 0.1 for whoever writes so
        except OverflowError:
            is_multiple = False
        if not is_multiple and abs(value / unit) == float("inf"):
            judge.work.do(10)
            is_multiple = (Fraction(value) / Fraction(unit)).denominator == 1
    return None if is_multiple else Found(f"{value} is not a multiple of {unit}")


def _size(kind: type[str] | type[list[Any]] | type[dict[str, Any]], word: str, is_least: bool) -> Keyword:
    def size(judge: Judge, bound: Any, value: Any, schema: Any) -> Found | None:
        if not isinstance(value, kind) or (len(value) >= bound if is_least else len(value) <= bound):
            return None
        return Found(
            f"{shown(value)} has {len(value)} {word}; {'at least' if is_least else 'at most'} {bound:g} are allowed"
        )

    return size


def _pattern(judge: Judge, pattern: Any, value: Any, schema: Any) -> Found | None:
    if isinstance(value, str) and judge.is_in(pattern, value) is False:
        return Found(f"{shown(value)} does not match {shown(pattern)}")
    return None


# --- lists ------------------------------------------------------------------------------------------------------------


def _each_from(judge: Judge, first: int, value: Any, schema: Any) -> Found | None:
    for at in range(first, len(value)):
        found = judge.fault_at(at, value[at], schema)
        if found is not None:
            return found
    return None


def _in_order(judge: Judge, schemas: Any, value: Any, schema: Any) -> Found | None:
    if isinstance(value, list):
        for at, (inner, one) in enumerate(zip(value, schemas, strict=False)):
            found = judge.fault_at(at, inner, one)
            if found is not None:
                return found
    return None


def _items(judge: Judge, items: Any, value: Any, schema: Any) -> Found | None:
    return _each_from(judge, len(schema.get("prefixItems", ())), value, items) if isinstance(value, list) else None


def _older_items(judge: Judge, items: Any, value: Any, schema: Any) -> Found | None:
    if isinstance(items, list):
        return _in_order(judge, items, value, schema)
    return _each_from(judge, 0, value, items) if isinstance(value, list) else None


def _additional_items(judge: Judge, more: Any, value: Any, schema: Any) -> Found | None:
    first = schema.get("items")
    if not isinstance(first, list) or not isinstance(value, list):
        return None
    return _each_from(judge, len(first), value, more)


def _contains(judge: Judge, wanted: Any, value: Any, schema: Any) -> Found | None:
    return _contained(judge, wanted, value, schema.get("minContains", 1), schema.get("maxContains"))


def _older_contains(judge: Judge, wanted: Any, value: Any, schema: Any) -> Found | None:
    return _contained(judge, wanted, value, 1, None)


def _contained(judge: Judge, wanted: Any, value: Any, least: Any, most: Any) -> Found | None:
    if not isinstance(value, list):
        return None
    count = sum(judge.fault_in(inner, wanted) is None for inner in value)
    if count < least or (most is not None and count > most):
        return Found(f"{shown(value)} contains {count} of the items of which it has to contain another number")
    return None


def _unique_items(judge: Judge, is_wanted: Any, value: Any, schema: Any) -> Found | None:
    if is_wanted and isinstance(value, list) and len({judge.identity(item) for item in value}) < len(value):
        return Found(f"{shown(value)} has the same item twice")
    return None


# --- objects ----------------------------------------------------------------------------------------------------------


def _properties(judge: Judge, named: Any, value: Any, schema: Any) -> Found | None:
    if not isinstance(value, dict):
        return None
    judge.look_through(named)
    for name, inner in named.items():
        if name in value:
            found = judge.fault_at(name, value[name], inner)
            if found is not None:
                return found
    return None


def _pattern_properties(judge: Judge, patterns: Any, value: Any, schema: Any) -> Found | None:
    if not isinstance(value, dict):
        return None
    for pattern, inner in patterns.items():
        judge.work.do(1)
        judge.look_through(value)
        for name, of_it in value.items():
            found = judge.fault_at(name, of_it, inner) if judge.is_in(pattern, name) else None
            if found is not None:
                return found
    return None


def _additional_properties(judge: Judge, allowed: Any, value: Any, schema: Any) -> Found | None:
    """What may be meant by a pattern that nobody tries is not one too many."""
    if not isinstance(value, dict):
        return None
    judge.look_through(value)
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, inner in value.items():
        judge.look_through(patterns)
        if name in named or any(judge.is_in(pattern, name) is not False for pattern in patterns):
            continue
        if allowed is False:
            return Found(f"{shown(name)} is not among the properties that it may have")
        found = judge.fault_at(name, inner, allowed)
        if found is not None:
            return found
    return None


def _property_names(judge: Judge, names: Any, value: Any, schema: Any) -> Found | None:
    for name in value if isinstance(value, dict) else ():
        found = judge.fault_in(name, names)
        if found is not None:
            return found
    return None


def _required(judge: Judge, names: Any, value: Any, schema: Any) -> Found | None:
    if not isinstance(value, dict):
        return None
    judge.look_through(names)
    missing = next((name for name in names if name not in value), None)
    return None if missing is None else Found(f"{shown(missing)} is a required property")


def _dependencies(judge: Judge, dependencies: Any, value: Any, schema: Any) -> Found | None:
    """Schemas or names, by property."""
    if not isinstance(value, dict):
        return None
    judge.look_through(dependencies)
    for name, needed in dependencies.items():
        if name in value:
            judge.work.do(1)
            is_list = isinstance(needed, list)
            found = _required(judge, needed, value, schema) if is_list else judge.fault_in(value, needed)
            if found is not None:
                return found
    return None


_BOTH: Mapping[str, Keyword] = {
    "$ref": _ref,
    "type": _type,
    "enum": _enum,
    "const": _const,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
    "if": _if,
    "minimum": _minimum,
    "maximum": _maximum,
    "exclusiveMinimum": _exclusive_minimum,
    "exclusiveMaximum": _exclusive_maximum,
    "multipleOf": _multiple_of,
    "minLength": _size(str, "characters", True),
    "maxLength": _size(str, "characters", False),
    "minItems": _size(list, "items", True),
    "maxItems": _size(list, "items", False),
    "minProperties": _size(dict, "properties", True),
    "maxProperties": _size(dict, "properties", False),
    "pattern": _pattern,
    "uniqueItems": _unique_items,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "propertyNames": _property_names,
    "required": _required,
}
USUAL: Mapping[str, Keyword] = {
    **_BOTH,
    "prefixItems": _in_order,
    "items": _items,
    "contains": _contains,
    "dependentSchemas": _dependencies,
    "dependentRequired": _dependencies,
}
OLDER: Mapping[str, Keyword] = {
    **_BOTH,
    "items": _older_items,
    "additionalItems": _additional_items,
    "contains": _older_contains,
    "dependencies": _dependencies,
}
