"""Values of a client's body, checked where they lie. Pure; every complaint names the place, such as `messages[2].role`.

`where`: the place of the object that has them; nothing for the body itself."""

from __future__ import annotations

from typing import Any

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.fields import count_in, flag_in, wrong_type
from forebay_gateway.refused import BadField


def at(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def text_at(owner: Json, name: str, where: str = "") -> str:
    value = owner.get(name)
    if not isinstance(value, str):
        raise _missing_or_wrong(at(where, name), "a string", value)
    return value


def object_at(owner: Json, name: str, where: str = "") -> Json:
    value = owner.get(name)
    if not isinstance(value, dict):
        raise _missing_or_wrong(at(where, name), "an object", value)
    return value


def objects_at(owner: Json, name: str, where: str = "") -> list[tuple[str, Json]]:
    """(place, object) of each in a list; none when there is no list."""
    place, value = at(where, name), owner.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise wrong_type(place, "a list of objects", value)
    for number, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise wrong_type(f"{place}[{number}]", "an object", entry)
    return [(f"{place}[{number}]", entry) for number, entry in enumerate(value)]


def flag_at(owner: Json, name: str, where: str = "") -> bool:
    return flag_in({at(where, name): owner.get(name)}, at(where, name))


def count_at(owner: Json, name: str, where: str = "") -> int | None:
    return count_in({at(where, name): owner.get(name)}, at(where, name))


def unknown(place: str, given: str, known: str) -> BadField:
    """`known`: what it can be instead, in words."""
    return BadField(f"`{place}` is `{given[:64]}`; here it can be {known}.", param=place, code="invalid_value")


def _missing_or_wrong(place: str, wanted: str, given: Any) -> BadField:
    if given is None:
        return BadField(f"`{place}` is missing; it must be {wanted}.", param=place, code="missing_required_parameter")
    return wrong_type(place, wanted, given)
