"""Items of a request that are named instead of sent: found among what their user has kept.

An item of a response has a name by which that response can be found. Those that were put into a conversation by hand are
things of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from forebay_gateway.canonical.speech import dumped
from forebay_gateway.canonical.typed import bad_value
from forebay_gateway.dialects.responses.items import response_with
from forebay_gateway.dialects.responses.keeping import reference_in, tellable
from forebay_gateway.keeping.contents import ContentStore, Kind
from forebay_gateway.keeping.room import Room
from forebay_gateway.refused import NotKept

Json = dict[str, Any]

_MOST = 100
"""In one request, repetitions included. Each may have to be looked up by itself."""


async def with_items(body: Json, user_id: str, contents: ContentStore, room: Room) -> Json:
    """The request, with the items that its input names. Raises NotKept, BadField, BodyTooLarge, Refused,
    StateUnavailable."""
    told = body.get("input")
    if not isinstance(told, list):
        return body
    named = Counter(id for item in told if (id := reference_in(item)) is not None)
    if not named:
        return body
    if named.total() > _MOST:
        raise bad_value("input", f"`input` names {named.total()} items; {_MOST} can be looked up at once.")
    found = await _find(named, user_id, contents, room)
    items = [item if (id := reference_in(item)) is None else found[id] for item in told]
    return {**body, "input": tellable(items)}


async def _find(named: Counter[str], user_id: str, contents: ContentStore, room: Room) -> Mapping[str, Json]:
    """Of what is looked into, only that is kept which is named, and it is counted before the next is loaded."""
    found: dict[str, Json] = {}
    looked_into: set[str] = set()
    for id in named:
        response_id = response_with(id)
        if response_id is not None and response_id not in looked_into:
            looked_into.add(response_id)
            for item in await _items_of(response_id, user_id, contents):
                if item["id"] in named:
                    found[item["id"]] = _counted(item, named, room)
        if id not in found:
            found[id] = _counted(await _item(id, user_id, contents), named, room)
    return found


def _counted(item: Json, named: Counter[str], room: Room) -> Json:
    """It is written as often as it is named. Raises BodyTooLarge, Refused."""
    room.take(len(dumped(item)) * named[item["id"]])
    return item


async def _items_of(response_id: str, user_id: str, contents: ContentStore) -> list[Json]:
    kept = await contents.get(user_id, Kind.RESPONSE, response_id)
    return [] if kept is None else [*kept.body["input"], *kept.body["response"]["output"]]


async def _item(id: str, user_id: str, contents: ContentStore) -> Json:
    kept = await contents.get(user_id, Kind.ITEM, id)
    if kept is None:
        raise NotKept(
            f"Item with id '{id[:80]}' not found. Items are kept of responses that were stored and of conversations: send "
            "the item itself, or leave it out.",
            param="input",
        )
    return kept.body
