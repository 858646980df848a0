"""Values of a client's body, checked where they lie. Pure; every complaint names the place, such as `messages[2].role`.

`where`: the place of the object that has them; nothing for the body itself."""

from __future__ import annotations

from typing import TypeVar

from forebay_gateway.canonical import typed
from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.fields import count_in, flag_in
from forebay_gateway.canonical.typed import missing, of_kind
from forebay_gateway.dialects.anthropic.untranslated import OnlyAnthropic

T = TypeVar("T")


def at(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def text_at(owner: Json, name: str, where: str = "") -> str:
    place = at(where, name)
    return _there(of_kind(owner.get(name), str, "a string", place), "a string", place)


def object_at(owner: Json, name: str, where: str = "") -> Json:
    place = at(where, name)
    return _there(of_kind(owner.get(name), dict, "an object", place), "an object", place)


def objects_at(owner: Json, name: str, where: str = "") -> list[tuple[str, Json]]:
    """(place, object) of each in a list; none when there is no list."""
    return typed.objects_at(owner.get(name), at(where, name))


def flag_at(owner: Json, name: str, where: str = "") -> bool:
    return flag_in({at(where, name): owner.get(name)}, at(where, name))


def count_at(owner: Json, name: str, where: str = "") -> int | None:
    return count_in({at(where, name): owner.get(name)}, at(where, name))


def unknown(place: str, given: str, known: str) -> OnlyAnthropic:
    """Anthropic may know it. `known`: what it can be instead, in words."""
    message = f"`{place}` is `{given[:64]}`; here it can be {known}."
    return OnlyAnthropic(message, param=place, code="invalid_value")


def _there(value: T | None, wanted: str, place: str) -> T:
    if value is None:
        raise missing(place, f"it must be {wanted}")
    return value
