"""A user's conversations: what they say of themselves, and their items in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from forebay.clock import Clock
from forebay_gateway.dialects.responses.items import new_id
from forebay_gateway.keeping.contents import ContentPage, ContentStore, Kind, StoredContent
from forebay_gateway.keeping.room import Room
from forebay_gateway.refused import BadField, NotKept

Json = dict[str, Any]

_PAGE = 100
_MOST_ITEMS = 10_000
"""That are put in front of one request."""


class Conversations:
    def __init__(self, contents: ContentStore, clock: Clock) -> None:
        self._contents = contents
        self._clock = clock
        self._last_us = 0

    async def create(self, user_id: str, metadata: Json, items: Sequence[Json]) -> StoredContent:
        conversation = StoredContent(
            Kind.CONVERSATION, new_id("conv"), user_id, self.moment_us(), {"metadata": metadata}
        )
        await self._contents.put(conversation)
        await self.append(conversation, items)
        return conversation

    async def find(self, user_id: str, id: str, *, param: str | None = None) -> StoredContent:
        """Raises NotKept."""
        found = await self._contents.get(user_id, Kind.CONVERSATION, id)
        if found is None:
            raise NotKept(f"Conversation with id '{id[:80]}' not found.", param=param)
        return found

    async def describe(self, user_id: str, id: str, metadata: Json) -> StoredContent:
        """Raises NotKept."""
        changed = replace(await self.find(user_id, id), body={"metadata": metadata})
        await self._contents.put(changed)
        return changed

    async def append(self, conversation: StoredContent, items: Sequence[Json]) -> None:
        """One after the other: when it fails in between, what is there has no gaps."""
        for item in items:
            await self._contents.put(
                StoredContent(
                    Kind.ITEM, item["id"], conversation.user_id, self.moment_us(), item, parent_id=conversation.id
                )
            )

    async def items(self, conversation: StoredContent, room: Room) -> list[Json]:
        """All of them. Raises BadField when there are too many to go on from, BodyTooLarge, Refused."""
        items: list[Json] = []
        after, has_more = "", True
        while has_more:
            page = await self.page(conversation, limit=_PAGE, after=after)
            room.take(sum(content.body_bytes for content in page.contents))
            items += [content.body for content in page.contents]
            has_more = page.has_more and bool(page.contents)
            if has_more:
                after = page.contents[-1].id
            if len(items) > _MOST_ITEMS:
                raise BadField(
                    f"The conversation has more than {_MOST_ITEMS} items; begin another.", param="conversation"
                )
        return items

    async def page(
        self, conversation: StoredContent, *, limit: int, after: str = "", descending: bool = False
    ) -> ContentPage:
        """Raises NotFound when `after` is not there."""
        return await self._contents.list(
            conversation.user_id, Kind.ITEM, conversation.id, limit=limit, after=after, descending=descending
        )

    def moment_us(self) -> int:
        """Now, and later than any before it, since items are in the order of their times."""
        self._last_us = max(self._last_us + 1, int(self._clock.now() * 1e6))
        return self._last_us
