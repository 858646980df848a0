"""What a field of a request must be, at any depth. Pure. Complaints name it in full, such as `input[3].content[0].text`.

`of_kind` and `objects_at` are what each dialect's own words for it are built on."""

from __future__ import annotations

from typing import Any, TypeVar

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.fields import wrong_type
from forebay_gateway.refused import BadField

T = TypeVar("T")

_MOST_METADATA, _LONGEST_METADATA_NAME, _LONGEST_METADATA = 16, 64, 512
"""OpenAI's. In characters, but the first."""


def string_in(holder: Json, name: str, at: str = "") -> str | None:
    """`at`: what comes before the name in a complaint, such as `tools[0].`"""
    return of_kind(holder.get(name), str, "a string", at + name)


def switch_in(holder: Json, name: str, at: str = "") -> bool | None:
    return of_kind(holder.get(name), bool, "true or false", at + name)


def object_in(holder: Json, name: str, at: str = "") -> Json | None:
    return of_kind(holder.get(name), dict, "an object", at + name)


def objects_in(holder: Json, name: str, at: str = "") -> list[Json]:
    """Nothing is an empty list."""
    return [entry for _, entry in objects_at(holder.get(name), at + name)]


def number_in(holder: Json, name: str, at: str = "") -> float | None:
    value = holder.get(name)
    if isinstance(value, bool):
        raise wrong_type(at + name, "a number", value)
    return of_kind(value, (int, float), "a number", at + name)


def metadata_in(holder: Json) -> Json:
    """Nothing is an empty object."""
    metadata = object_in(holder, "metadata") or {}
    if len(metadata) > _MOST_METADATA:
        raise bad_value("metadata", f"`metadata` has {len(metadata)} entries; there can be {_MOST_METADATA}.")
    for name, value in metadata.items():
        param = f"metadata.{name[:_LONGEST_METADATA_NAME]}"
        if not isinstance(value, str):
            raise wrong_type(param, "a string", value)
        if len(name) > _LONGEST_METADATA_NAME or len(value) > _LONGEST_METADATA:
            raise bad_value(
                param,
                f"`{param}` is too long: a name can have {_LONGEST_METADATA_NAME} characters and "
                f"what it says {_LONGEST_METADATA}.",
            )
    return metadata


def demand_string(holder: Json, name: str, at: str, what: str) -> str:
    """`what` says what to send when there is nothing."""
    value = string_in(holder, name, at)
    if value is None:
        raise missing(at + name, what)
    return value


def missing(param: str, what: str) -> BadField:
    return BadField(f"`{param}` is missing: {what}.", param=param, code="missing_required_parameter")


def bad_value(param: str, message: str) -> BadField:
    return BadField(message, param=param, code="invalid_value")


def objects_at(value: Any, place: str) -> list[tuple[str, Json]]:
    """(place, object) of each in a list; none when there is no list. Raises BadField."""
    entries: list[Any] = of_kind(value, list, "a list of objects", place) or []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise wrong_type(f"{place}[{number}]", "an object", entry)
    return [(f"{place}[{number}]", entry) for number, entry in enumerate(entries)]


def of_kind(value: Any, kind: type[T] | tuple[type[T], ...], wanted: str, place: str) -> T | None:
    """`wanted`: the kind in words. None: there is no value. Raises BadField."""
    if value is None:
        return None
    if not isinstance(value, kind):
        raise wrong_type(place, wanted, value)
    return value
