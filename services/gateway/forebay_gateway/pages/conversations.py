"""OpenAI's conversations: made, changed and read by their user. What goes on from one is `kept_responses`' business."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from forebay.errors import NotFound
from forebay_gateway.authentication import principal_of
from forebay_gateway.callers.call import Call
from forebay_gateway.canonical.fields import parse_object
from forebay_gateway.canonical.typed import bad_value, metadata_in, missing, objects_in
from forebay_gateway.dialects.responses.conversation import check_items
from forebay_gateway.dialects.responses.keeping import kept_items
from forebay_gateway.dialects.responses.thoughts import Thoughts
from forebay_gateway.keeping.contents import ContentStore, Kind, StoredContent
from forebay_gateway.keeping.conversations import Conversations
from forebay_gateway.keeping.sealed_thoughts import SealedThoughts
from forebay_gateway.pages.listed_items import as_page, no_such_item, page_wish
from forebay_gateway.pages.models_and_tokens import answer_page, read_page_body
from forebay_gateway.pages.path_patterns import Addresses
from forebay_gateway.serving import Means

Json = dict[str, Any]

_MOST_ITEMS = 20
"""At once, as OpenAI has it."""


class ConversationPages:
    def __init__(self, means: Means, conversations: Conversations) -> None:
        self._means = means
        self._contents: ContentStore = means.contents
        self._conversations = conversations

    @property
    def addresses(self) -> Addresses:
        return {
            "/v1/conversations": {"POST": self.create},
            "/v1/conversations/{conversation_id}": {"GET": self.show, "POST": self.update, "DELETE": self.delete},
            "/v1/conversations/{conversation_id}/items": {"GET": self.list_items, "POST": self.add_items},
            "/v1/conversations/{conversation_id}/items/{item_id}": {"GET": self.show_item, "DELETE": self.delete_item},
        }

    # --- conversations ----------------------------------------------------------------------------------------------

    async def create(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        user_id = principal_of(self._means, call).user_id
        raw = await read_page_body(self._means, request)
        body = parse_object(raw, "`metadata` and `items`, or with nothing") if raw else {}
        items = _items_in(body, SealedThoughts(self._means.thoughts, user_id))
        conversation = await self._conversations.create(user_id, metadata_in(body), items)
        return answer_page(_told(conversation), call)

    async def show(self, request: web.BaseRequest, call: Call, conversation_id: str) -> web.StreamResponse:
        return answer_page(_told(await self._find(call, conversation_id)), call)

    async def update(self, request: web.BaseRequest, call: Call, conversation_id: str) -> web.StreamResponse:
        user_id = principal_of(self._means, call).user_id
        body = parse_object(await read_page_body(self._means, request), "`metadata`")
        if "metadata" not in body:
            raise missing("metadata", "it is all that can be changed of a conversation")
        changed = await self._conversations.describe(user_id, conversation_id, metadata_in(body))
        return answer_page(_told(changed), call)

    async def delete(self, request: web.BaseRequest, call: Call, conversation_id: str) -> web.StreamResponse:
        conversation = await self._find(call, conversation_id)
        await self._contents.delete(conversation.user_id, Kind.CONVERSATION, conversation.id)
        return answer_page({"id": conversation.id, "object": "conversation.deleted", "deleted": True}, call)

    # --- items ------------------------------------------------------------------------------------------------------

    async def list_items(self, request: web.BaseRequest, call: Call, conversation_id: str) -> web.StreamResponse:
        conversation = await self._find(call, conversation_id)
        wish = page_wish(request.query)
        try:
            page = await self._conversations.page(
                conversation, limit=wish.limit, after=wish.after, descending=wish.is_descending
            )
        except NotFound as error:
            raise no_such_item(wish.after, param="after") from error
        return answer_page(as_page([kept.body for kept in page.contents], has_more=page.has_more), call)

    async def add_items(self, request: web.BaseRequest, call: Call, conversation_id: str) -> web.StreamResponse:
        conversation = await self._find(call, conversation_id)
        body = parse_object(await read_page_body(self._means, request), "`items`")
        items = _items_in(body, SealedThoughts(self._means.thoughts, conversation.user_id))
        if not items:
            raise missing("items", "list the items to add")
        await self._conversations.append(conversation, items)
        return answer_page(as_page(items, has_more=False), call)

    async def show_item(
        self, request: web.BaseRequest, call: Call, conversation_id: str, item_id: str
    ) -> web.StreamResponse:
        conversation = await self._find(call, conversation_id)
        return answer_page((await self._find_item(conversation, item_id)).body, call)

    async def delete_item(
        self, request: web.BaseRequest, call: Call, conversation_id: str, item_id: str
    ) -> web.StreamResponse:
        conversation = await self._find(call, conversation_id)
        item = await self._find_item(conversation, item_id)
        await self._contents.delete(item.user_id, Kind.ITEM, item.id)
        return answer_page(_told(conversation), call)

    # ----------------------------------------------------------------------------------------------------------------

    async def _find(self, call: Call, conversation_id: str) -> StoredContent:
        return await self._conversations.find(principal_of(self._means, call).user_id, conversation_id)

    async def _find_item(self, conversation: StoredContent, item_id: str) -> StoredContent:
        item = await self._contents.get(conversation.user_id, Kind.ITEM, item_id)
        if item is None or item.parent_id != conversation.id:
            raise no_such_item(item_id)
        return item


def _items_in(body: Json, thoughts: Thoughts) -> list[Json]:
    """Raises BadField."""
    items = objects_in(body, "items")
    if len(items) > _MOST_ITEMS:
        raise bad_value("items", f"`items` has {len(items)} entries; {_MOST_ITEMS} can be added at once.")
    check_items(items, "items", thoughts)
    return kept_items(items)


def _told(conversation: StoredContent) -> Json:
    return {
        "id": conversation.id,
        "object": "conversation",
        "created_at": conversation.created_at_us // 1_000_000,
        "metadata": conversation.body["metadata"],
    }
