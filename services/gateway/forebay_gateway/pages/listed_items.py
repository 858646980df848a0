"""Lists of items, as OpenAI's clients page through them: `limit`, `order` and `after` in, one page out. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forebay_gateway.refused import BadField, NotKept

Json = dict[str, Any]

_USUAL, _MOST = 20, 100


@dataclass(frozen=True, slots=True)
class PageWish:
    limit: int
    is_descending: bool
    """The newest first, which is usual."""
    after: str
    """The id after which the page begins; empty: at the first."""


def page_wish(query: Mapping[str, str], *, usual: int = _USUAL, most: int = _MOST) -> PageWish:
    """Raises BadField."""
    limit, order = query.get("limit", str(usual)), query.get("order", "desc")
    if not (limit.isascii() and limit.isdecimal() and len(limit) < 6 and 1 <= int(limit) <= most):
        raise BadField(
            f"`limit` is {limit[:40]!r}; it must be a whole number from 1 to {most}.",
            param="limit",
            code="invalid_value",
        )
    if order not in ("asc", "desc"):
        raise BadField(f"`order` is {order[:40]!r}; it can be asc or desc.", param="order", code="invalid_value")
    return PageWish(int(limit), order == "desc", query.get("after", ""))


def cut_page(items: Sequence[Json], wish: PageWish) -> Json:
    """From all of them, the oldest first. Raises NotKept."""
    ordered = list(reversed(items)) if wish.is_descending else list(items)
    if wish.after:
        place = next((place for place, item in enumerate(ordered) if item["id"] == wish.after), None)
        if place is None:
            raise no_such_item(wish.after, param="after")
        ordered = ordered[place + 1 :]
    return as_page(ordered[: wish.limit], has_more=len(ordered) > wish.limit)


def as_page(items: Sequence[Json], *, has_more: bool) -> Json:
    return {
        "object": "list",
        "data": list(items),
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": has_more,
    }


def no_such_item(id: str, *, param: str | None = None) -> NotKept:
    return NotKept(f"Item with id '{id[:80]}' not found.", param=param)
