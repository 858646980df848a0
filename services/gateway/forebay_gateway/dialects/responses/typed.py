"""What a field of a request must be, at any depth. Complaints name it in full, such as `input[3].content[0].text`."""

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
    return _of_kind(holder.get(name), str, "a string", at + name)


def switch_in(holder: Json, name: str, at: str = "") -> bool | None:
    return _of_kind(holder.get(name), bool, "true or false", at + name)


def object_in(holder: Json, name: str, at: str = "") -> Json | None:
    return _of_kind(holder.get(name), dict, "an object", at + name)


def objects_in(holder: Json, name: str, at: str = "") -> list[Json]:
    """Nothing is an empty list."""
    entries: list[Any] = _of_kind(holder.get(name), list, "a list of objects", at + name) or []
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise wrong_type(f"{at}{name}[{place}]", "an object", entry)
    return entries


def number_in(holder: Json, name: str, at: str = "") -> float | None:
    value = holder.get(name)
    if isinstance(value, bool):
        raise wrong_type(at + name, "a number", value)
    return _of_kind(value, (int, float), "a number", at + name)


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


def _of_kind(value: Any, kind: type[T] | tuple[type[T], ...], wanted: str, param: str) -> T | None:
    if value is None:
        return None
    if not isinstance(value, kind):
        raise wrong_type(param, wanted, value)
    return value
