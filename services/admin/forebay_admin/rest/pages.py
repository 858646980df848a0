"""Lists in pages. Pure.

Very long lists are told by their call page by page: the token is the id of the last thing of the page before. Others
are told whole, and cut here: the token says after which thing a page begins, and at which place that was. When the thing is
gone, the place counts: a list that changes between two pages may then tell one thing twice or not at all."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from forebay.errors import BadInput
from forebay_admin.rest.routes import AFTER, LIMIT, Pages

SIZE, TOKEN, NEXT = "page_size", "page_token", "next_page_token"
USUAL_SIZE, MOST_SIZE = 100, 1000
TOKEN_FORM = "^[1-9][0-9]{0,8}-[0-9a-f]{16}$"

ID_FORM = "^[A-Za-z0-9_-]{1,64}$"
"""Of a token of a list that is told by its call."""

_TOKEN, _ID = re.compile(TOKEN_FORM, re.ASCII), re.compile(ID_FORM, re.ASCII)


@dataclass(frozen=True, slots=True)
class Page:
    size: int = USUAL_SIZE
    place: int = 0
    """How many things came before."""
    after: str = ""
    """The mark of the last of them, or its id."""


def asked_page(size: str | None, token: str | None, *, from_call: bool = False) -> Page:
    """From the query. Raises BadInput."""
    if size is not None and not (size.isascii() and size.isdigit() and len(size) <= 6 and 1 <= int(size) <= MOST_SIZE):
        raise BadInput(f"{SIZE} is a number from 1 to {MOST_SIZE}.")
    if token is not None and not (_ID if from_call else _TOKEN).fullmatch(token):
        raise BadInput(f"This {TOKEN} is none that a list was told with.")
    if from_call:
        return Page(int(size) if size else USUAL_SIZE, after=token or "")
    place, _, after = (token or "0-").partition("-")
    return Page(int(size) if size else USUAL_SIZE, int(place), after)


def ask_for(message: Any, page: Page) -> None:
    """Of a call that tells pages itself."""
    setattr(message, LIMIT, page.size)
    setattr(message, AFTER, page.after)


def token_after(things: Sequence[Any], pages: Pages, *, has_more: bool) -> str | None:
    """Of the page after these, which their call told; None when they are the last."""
    return _inside(things[-1], pages.by[0]) if things and has_more else None


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
