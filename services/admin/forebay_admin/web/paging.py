"""Addresses of lists that are filtered and told page by page. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import quote, urlencode

T = TypeVar("T")


def address(path: str, given: Mapping[str, str], **changed: str | int | None) -> str:
    """`path` with the query that was `given`, but for what is `changed`; what is empty is left out."""
    asked = {**given, **{name: "" if value is None else str(value) for name, value in changed.items()}}
    query = urlencode({name: value for name, value in asked.items() if value})
    return f"{path}?{query}" if query else path


def step(text: str) -> str:
    """One part of a path, whatever is in it."""
    return quote(text, safe="")


@dataclass(frozen=True, slots=True)
class Piece(Generic[T]):
    """A page of a list."""

    rows: Sequence[T]
    number: int
    """Of rows in all."""
    next_href: str
    previous_href: str


def by_page(rows: Sequence[T], path: str, query: Mapping[str, str], size: int = 50) -> Piece[T]:
    """The page that the address asks for, of rows that are all here."""
    shown, before, after = piece_of(rows, query.get("page", ""), size)
    return Piece(
        shown,
        len(rows),
        address(path, query, page=after) if after else "",
        address(path, query, page=before) if before else "",
    )


def piece_of(rows: Sequence[T], page: str, size: int) -> tuple[Sequence[T], str, str]:
    """Of rows that are all here: those of that page, and which pages come before and after, empty where none does. A page
    that there is not is the first."""
    number = int(page) if page.isascii() and page.isdigit() and len(page) < 10 else 1
    last = max(1, -(-len(rows) // size))
    number = number if 1 <= number <= last else 1
    shown = rows[(number - 1) * size : number * size]
    return shown, str(number - 1) if number > 1 else "", str(number + 1) if number < last else ""
