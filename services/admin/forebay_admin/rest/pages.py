"""Lists in pages. Pure.

A token says after which thing a page begins, and at which place that was. When the thing is gone, the place counts: a list
that changes between two pages may then tell one thing twice or not at all."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from forebay.errors import BadInput
from forebay_admin.rest.routes import Pages

SIZE, TOKEN, NEXT = "page_size", "page_token", "next_page_token"
USUAL_SIZE, MOST_SIZE = 100, 1000
TOKEN_FORM = "^[1-9][0-9]{0,8}-[0-9a-f]{16}$"

_TOKEN = re.compile(TOKEN_FORM, re.ASCII)


@dataclass(frozen=True, slots=True)
class Page:
    size: int = USUAL_SIZE
    place: int = 0
    """How many things came before."""
    after: str = ""
    """The mark of the last of them."""


def asked_page(size: str | None, token: str | None) -> Page:
    """From the query. Raises BadInput."""
    if size is not None and not (size.isascii() and size.isdigit() and len(size) <= 6 and 1 <= int(size) <= MOST_SIZE):
        raise BadInput(f"{SIZE} is a number from 1 to {MOST_SIZE}.")
    if token is not None and not _TOKEN.fullmatch(token):
        raise BadInput(f"This {TOKEN} is none that a list was told with.")
    place, _, after = (token or "0-").partition("-")
    return Page(int(size) if size else USUAL_SIZE, int(place), after)


def cut(things: Sequence[Any], pages: Pages, page: Page) -> tuple[Sequence[Any], str | None]:
    """What is on this page, and the token of the next; None when this is the last."""
    start = min(page.place, len(things))
    if page.after and (start == 0 or _mark(things[start - 1], pages) != page.after):
        found = (at for at, thing in enumerate(things, start=1) if _mark(thing, pages) == page.after)
        start = next(found, start)
    end = start + page.size
    shown = things[start:end]
    return shown, f"{end}-{_mark(shown[-1], pages)}" if end < len(things) else None


def _mark(thing: Any, pages: Pages) -> str:
    """Of what tells it apart; short, however long its name is."""
    identity = "\0".join(_inside(thing, place) for place in pages.by)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _inside(thing: Any, place: str) -> str:
    for name in place.split("."):
        thing = getattr(thing, name)
    return str(thing)
