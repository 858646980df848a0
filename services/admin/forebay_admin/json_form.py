"""Messages as plain JSON values and back, the same way for the command line and the REST API. Scripts can rely on it:

- names are those of the messages in proto/forebay/wire/v1;
- a time `created_at_us` becomes `created_at`, ISO 8601 in UTC;
- an enumeration is its word in lower case, null when it is not told: `healthy`, `no_driver`;
- bytes are hexadecimal; numbers are numbers, also those of 64 bits;
- what is unknown is null, and never left out. What is read may leave out what it does not say, and null says nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from forebay.plain_message import Problem, unknown_name

Plain = dict[str, Any]

Field = Any
"""A FieldDescriptor, of which protobuf's two implementations have no common class."""

WHOLE: Mapping[int, tuple[int, int]] = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}
"""The least and the most that a whole number of each type can be."""

_TIME = "_us"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_HEX = re.compile(r"([0-9a-fA-F]{2})*", re.ASCII)


def name_of(field: Field) -> str:
    """What a field is called in JSON."""
    return str(field.name).removesuffix(_TIME)


def is_time(field: Field) -> bool:
    return bool(field.name.endswith(_TIME))


def is_map(field: Field) -> bool:
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


def words_of(enum: Any) -> dict[str, int]:
    """Its words and their numbers: every value begins with the name of the enumeration, which the first one (…_UNSPECIFIED)
    gives away. That first one is no word."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {value.name.removeprefix(prefix).lower(): value.number for value in enum.values if value.number}


def moment(us: int) -> str:
    """ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(us / 1_000_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- writing ----------------------------------------------------------------------------------------------------------


def plain(message: Message) -> Plain:
    return {name: write(message, getattr(message, attribute)) for attribute, name, write in _plan(message.DESCRIPTOR)}


def word(message: Message, field: str) -> str | None:
    """The word of an enumeration's value, None when it is not told."""
    written: str | None = _single(message.DESCRIPTOR.fields_by_name[field])(getattr(message, field))
    return written


_Write = Callable[[Message, Any], Any]
"""(the message, the field's value) → its JSON."""


@cache
def _plan(descriptor: Any) -> tuple[tuple[str, str, _Write], ...]:
    """How a kind of message is written: found out once, since asking descriptors takes longer than writing."""
    return tuple((field.name, name_of(field), _writer(field)) for field in descriptor.fields)


def _writer(field: Field) -> _Write:
    if is_map(field):
        return lambda _, value: {name: value[name] for name in sorted(value)}  # ours hold plain values
    single, name = _single(field), field.name
    if field.is_repeated:
        return lambda _, value: [single(item) for item in value]
    if field.has_presence:
        return lambda message, value: single(value) if message.HasField(name) else None
    if is_time(field):
        return lambda _, value: single(value) if value else None
    return lambda _, value: single(value)


def _single(field: Field) -> Callable[[Any], Any]:
    if field.message_type is not None:
        return plain
    if field.enum_type is not None:
        words = {number: word for word, number in words_of(field.enum_type).items()}
        return lambda number: words.get(number, str(number)) if number else None
    if is_time(field):
        return _moment_or_none
    match field.type:
        case FieldDescriptor.TYPE_BYTES:
            return bytes.hex
        case FieldDescriptor.TYPE_DOUBLE:
            return lambda number: number if math.isfinite(number) else None
    return lambda value: value


def _moment_or_none(us: int) -> str | None:
    try:
        return moment(us)
    except (OverflowError, ValueError, OSError):  # an agent's clock may say anything
        return None


# --- reading ----------------------------------------------------------------------------------------------------------


def read(into: Message, values: object, path: str = "") -> list[Problem]:
    """Puts into the message what fits; what does not is told with its place."""
    if not isinstance(values, Mapping):
        return [Problem(path, f"{_shown(values)} is not an object.")]
    fields = {name_of(field): field for field in into.DESCRIPTOR.fields}
    problems: list[Problem] = []
    said: dict[str, str] = {}
    for name, value in values.items():
        at = f"{path}.{name}" if path else str(name)
        field = fields.get(name)
        if field is None:
            problems.append(Problem(at, unknown_name(name, fields)))
        elif value is not None:
            problems += _set(into, field, value, at)
            choice = field.containing_oneof
            if choice is not None and len(choice.fields) > 1 and said.setdefault(choice.name, name) != name:
                problems.append(Problem(at, f"This or {said[choice.name]} can be said, not both."))
    return problems


def _set(into: Message, field: Field, value: Any, at: str) -> list[Problem]:
    if is_map(field):
        return _set_map(getattr(into, field.name), value, at)
    if field.is_repeated:
        return _set_list(getattr(into, field.name), field, value, at)
    if field.message_type is not None:
        place = getattr(into, field.name)
        place.SetInParent()  # an empty object is not the same as none
        return read(place, value, at)
    try:
        setattr(into, field.name, _read_single(field, value))
    except _Misfit as error:
        return [Problem(at, str(error))]
    return []


def _set_map(place: Any, value: Any, at: str) -> list[Problem]:
    if not isinstance(value, Mapping):
        return [Problem(at, f"{_shown(value)} is not an object of names and texts.")]
    problems = []
    for name, text in value.items():
        try:
            place[_text(name)] = _text(text)
        except _Misfit as error:
            problems.append(Problem(f"{at}.{name}", str(error)))
    return problems


def _set_list(place: Any, field: Field, value: Any, at: str) -> list[Problem]:
    if not isinstance(value, list):
        return [Problem(at, f"{_shown(value)} is not a list.")]
    problems: list[Problem] = []
    for number, item in enumerate(value, start=1):
        where = f"{at}.{number}"
        if field.message_type is not None:
            problems += read(place.add(), item, where)
            continue
        try:
            place.append(_read_single(field, item))
        except _Misfit as error:
            problems.append(Problem(where, str(error)))
    return problems


def _read_single(field: Field, value: Any) -> Any:
    if field.enum_type is not None:
        return _read_word(field, value)
    if is_time(field):
        return _read_moment(value)
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return _text(value)
        case FieldDescriptor.TYPE_BOOL:
            if not isinstance(value, bool):
                raise _Misfit(f"{_shown(value)} is neither true nor false.")
            return value
        case FieldDescriptor.TYPE_DOUBLE:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise _Misfit(f"{_shown(value)} is not a number.")
            return _finite(value)
        case FieldDescriptor.TYPE_BYTES:
            if not isinstance(value, str) or not _HEX.fullmatch(value):
                raise _Misfit(f"{_shown(value)} is not bytes in hexadecimal.")
            return bytes.fromhex(value)
    return _read_whole(value, *WHOLE[field.type])


def _read_whole(value: Any, least: int, most: int) -> int:
    if isinstance(value, float) and value.is_integer():  # 3.0 is a whole number to JSON
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _Misfit(f"{_shown(value)} is not a whole number.")
    if not least <= value <= most:
        raise _Misfit(f"{_shown(value)} is not a number from {least} to {most}.")
    return value


def _read_word(field: Field, value: Any) -> int:
    words = words_of(field.enum_type)
    if not isinstance(value, str) or value not in words:
        raise _Misfit(f"{_shown(value)} is none of {', '.join(words)}.")
    return words[value]


def _read_moment(value: Any) -> int:
    if isinstance(value, str) and _RFC_3339.fullmatch(value):
        try:
            return (datetime.fromisoformat(value.upper()) - _EPOCH) // timedelta(microseconds=1)
        except (ValueError, OverflowError):
            pass
    raise _Misfit(f"{_shown(value)} is not a time such as 2027-01-31T12:00:00Z.")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Misfit(f"{_shown(value)} is not text.")
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise _Misfit("This text has characters that no text may have.")
    return value


def _finite(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _Misfit("This number is too large.")
    return number


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "An object"
    if isinstance(value, list):
        return "A list"
    if isinstance(value, int) and abs(value) >= 10**30:
        return "A number of that size"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


class _Misfit(Exception):
    """Why a value does not fit its field, in one sentence."""
