"""Whole numbers for things that have other ids here, for scripts that expect numbers. Pure.

A number is made of the id and nothing else, so every replica tells the same one, always, and none is kept. It has 52 bits,
which every reader of JSON holds exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import TypeVar

from forebay.errors import BadInput, NotFound

T = TypeVar("T")

_BITS = 52


def number_of(kind: str, id: str) -> int:
    """At least 1. `kind`: such as backend, so that two things with one id have two numbers."""
    digest = hashlib.sha256(f"{kind}\0{id}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> (64 - _BITS)) or 1


def find(kind: str, things: Iterable[T], asked: str, id_of: Callable[[T], str], name_of: Callable[[T], str]) -> T:
    """The thing with this id, number or name: whoever is called as another's number never stands in for it. Raises NotFound,
    and BadInput where two have the same number."""
    things = tuple(things)
    found = [thing for thing in things if id_of(thing) == asked]
    if not found and asked.isascii() and asked.isdigit():
        found = [thing for thing in things if asked == str(number_of(kind, id_of(thing)))]
    if not found:
        found = [thing for thing in things if name_of(thing) == asked]
    if not found:
        raise NotFound(f"{kind.capitalize()} not found")
    if len(found) > 1:
        raise BadInput(f"Two have this number: say {' or '.join(id_of(thing) for thing in found)} instead.")
    return found[0]
