"""Plain values, as YAML, TOML and JSON give them, into a message whose fields they are named after, and back. Pure.

What does not fit is left out and told with the place where it stands; whether what fits makes sense is the reader's to say.
Maps are of text to text; numbers that a field cannot hold do not fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)

_Field = Any
"""A FieldDescriptor, of which protobuf's two implementations have no common class."""
_MOST = {
    FieldDescriptor.TYPE_UINT32: 2**32 - 1,
    FieldDescriptor.TYPE_UINT64: 2**64 - 1,
}


@dataclass(frozen=True, slots=True)
class Problem:
    path: str
    """backends.big.url; an entry of a list of things is called by its `name` where it has one, else by its number."""
    why: str
    """One sentence."""


def read_message(into: M, values: object, path: str = "") -> tuple[M, list[Problem]]:
    """`into`, with what of `values` fits."""
    problems: list[Problem] = []
    if not isinstance(values, Mapping):
        return into, [Problem(path, f"{_shown(values)} is not a table of names and values.")]
    fields: dict[object, _Field] = {field.name: field for field in into.DESCRIPTOR.fields}
    for name, value in values.items():
        at = f"{path}.{name}" if path else str(name)
        field = fields.get(name)
        if field is None:
            problems.append(Problem(at, unknown_name(name, fields)))
        elif value is not None:  # a name with nothing after it says nothing
            problems += _set(into, field, value, at)
    return into, problems


def plain_of(message: Message) -> dict[str, Any]:
    """Its fields that say something, in the order in which the message has them."""
    values: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if _is_map(field):
            value = {name: value[name] for name in sorted(value)}
        elif field.is_repeated:
            value = [plain_of(item) if field.message_type else item for item in value]
        elif field.has_presence and not message.HasField(field.name):
            continue
        elif field.message_type:
            value = plain_of(value)
        if field.has_presence or value:
            values[field.name] = value
    return values


def nul_place(message: Message) -> str:
    """Where a text of the message holds a NUL character, such as `key.labels.team`; empty: nowhere. Protobuf lets one pass,
    and no text of PostgreSQL holds one."""
    return next((place for place, text in _texts(message, "") if "\0" in text), "")


def _texts(message: Message, path: str) -> Iterator[tuple[str, str]]:
    """All the texts in it, each with its place."""
    for field, value in message.ListFields():
        at = f"{path}.{field.name}" if path else field.name
        if _is_map(field):
            for name, one in value.items():
                yield at, str(name)
                yield from _texts_in(one, f"{at}.{name}")
        elif field.is_repeated:
            for number, one in enumerate(value, start=1):
                yield from _texts_in(one, f"{at}.{number}")
        else:
            yield from _texts_in(value, at)


def _texts_in(value: object, at: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, Message):
        yield from _texts(value, at)


def _set(into: Message, field: _Field, value: object, at: str) -> list[Problem]:
    if _is_map(field):
        if not isinstance(value, Mapping):
            return [Problem(at, f"{_shown(value)} is not a table of names and texts.")]
        wrong = [n for n, v in value.items() if not _is_text(n) or not _is_text(v)]
        getattr(into, field.name).update({n: v for n, v in value.items() if n not in wrong})
        return [Problem(f"{at}.{n}", f"{_shown(value[n])} is not text; put quotes around it.") for n in wrong]
    if not field.is_repeated:
        return _set_single(into, field, value, at)
    if not isinstance(value, list | tuple):
        return [Problem(at, f"{_shown(value)} is not a list.")]
    problems: list[Problem] = []
    place = getattr(into, field.name)
    for number, item in enumerate(value, start=1):
        if field.message_type:
            problems += read_message(place.add(), item, f"{at}.{entry_name(item, number)}")[1]
        elif (why := _misfit(field, item)) is not None:
            problems.append(Problem(f"{at}.{number}", why))
        else:
            place.append(item)
    return problems


def _set_single(into: Message, field: _Field, value: object, at: str) -> list[Problem]:
    if field.message_type:
        return read_message(getattr(into, field.name), value, at)[1]
    why = _misfit(field, value)
    if why is not None:
        return [Problem(at, why)]
    setattr(into, field.name, value)
    return []


def entry_name(item: object, number: int) -> str:
    """What an entry of a list is called in a path; `number` counts from 1."""
    name = item.get("name") if isinstance(item, Mapping) else None
    return name if isinstance(name, str) and name else str(number)


def _misfit(field: _Field, value: object) -> str | None:
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return None if _is_text(value) else f"{_shown(value)} is not text; put quotes around it."
        case FieldDescriptor.TYPE_BOOL:
            return None if isinstance(value, bool) else f"{_shown(value)} is neither true nor false."
        case FieldDescriptor.TYPE_DOUBLE:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return None if is_number else f"{_shown(value)} is not a number."
    most = _MOST[field.type]
    if not isinstance(value, int) or isinstance(value, bool):
        return f"{_shown(value)} is not a whole number."
    return None if 0 <= value <= most else f"{value} is not a number from 0 to {most}."


def unknown_name(name: object, fields: Iterable[object]) -> str:
    """Why a name is no field's, in one sentence that helps."""
    known = [str(field) for field in fields]
    near = get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}."
    return f"{_shown(name)} is not known here; {hint}"


def _is_map(field: _Field) -> bool:
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
