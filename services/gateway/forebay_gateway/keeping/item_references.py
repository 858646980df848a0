"""Items of a request that are named instead of sent: found among what their user has kept.

An item of a response has a name by which that response can be found. Those that were put into a conversation by hand are
things of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forebay_gateway.canonical.typed import bad_value
from forebay_gateway.dialects.responses.items import response_with
from forebay_gateway.dialects.responses.keeping import reference_in, tellable
from forebay_gateway.keeping.contents import ContentStore, Kind
from forebay_gateway.refused import NotKept

Json = dict[str, Any]

_MOST = 100
"""In one request. Each may have to be looked up by itself."""


async def with_items(body: Json, user_id: str, contents: ContentStore) -> Json:
    """The request, with the items that its input names. Raises NotKept, BadField, StateUnavailable."""
    told = body.get("input")
    if not isinstance(told, list):
        return body
    named = list(dict.fromkeys(id for item in told if (id := reference_in(item)) is not None))
    if not named:
        return body
    if len(named) > _MOST:
        raise bad_value("input", f"`input` names {len(named)} items; {_MOST} can be looked up at once.")
    found = await _find(named, user_id, contents)
    items = [item if (id := reference_in(item)) is None else found[id] for item in told]
    return {**body, "input": tellable(items)}


async def _find(ids: Sequence[str], user_id: str, contents: ContentStore) -> Mapping[str, Json]:
    found: dict[str, Json] = {}
    looked_into: set[str] = set()
    for id in ids:
        response_id = response_with(id)
        if response_id is not None and response_id not in looked_into:
            looked_into.add(response_id)
            found |= await _items_of(response_id, user_id, contents)
        if id not in found:
            found[id] = await _item(id, user_id, contents)
    return found


async def _items_of(response_id: str, user_id: str, contents: ContentStore) -> dict[str, Json]:
    kept = await contents.get(user_id, Kind.RESPONSE, response_id)
    if kept is None:
        return {}
    return {item["id"]: item for item in (*kept.body["input"], *kept.body["response"]["output"])}


async def _item(id: str, user_id: str, contents: ContentStore) -> Json:
    kept = await contents.get(user_id, Kind.ITEM, id)
    if kept is None:
        raise NotKept(
            f"Item with id '{id[:80]}' not found. Items are kept of responses that were stored and of conversations: send "
            "the item itself, or leave it out.",
            param="input",
        )
    return kept.body
