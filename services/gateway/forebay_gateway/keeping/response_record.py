"""Where one response is kept, with the items of its own input, and the conversation that it may belong to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from forebay.clock import Clock
from forebay_gateway.keeping.contents import ContentStore, Kind, StoredContent
from forebay_gateway.keeping.conversations import Conversations

Json = dict[str, Any]

_KEPT_S = 30 * 86400.0
"""As long as OpenAI keeps a response."""


class ResponseRecord:
    def __init__(
        self,
        items: Sequence[Json],
        *,
        user_id: str,
        previous_id: str,
        conversation: StoredContent | None,
        contents: ContentStore,
        conversations: Conversations,
        clock: Clock,
    ) -> None:
        """`items`: of its own input."""
        self._items, self._previous_id = items, previous_id
        self._contents, self._conversations, self._clock = contents, conversations, clock
        self._created_at: float | None = None
        self.user_id = user_id
        self.conversation = conversation

    async def store(self, response: Json, cuts: Json | None = None) -> None:
        """May be called again, with the response as it stands by then. `cuts`: how it was told, of one in the background.
        Raises as ContentStore.put."""
        if self._created_at is None:
            self._created_at = self._clock.now()
        body: Json = {"response": response, "input": self._items}
        if cuts is not None:
            body["cuts"] = cuts
        await self._contents.put(
            StoredContent(
                Kind.RESPONSE,
                response["id"],
                self.user_id,
                int(self._created_at * 1e6),
                body,
                parent_id=self._previous_id,
                expires_at_us=int((self._created_at + _KEPT_S) * 1e6),
            )
        )

    async def add_to_conversation(self, response: Json) -> None:
        """The input's items and the output's, if there is one. Raises as ContentStore.put."""
        if self.conversation is not None:
            await self._conversations.append(self.conversation, [*self._items, *response["output"]])

    async def remove(self, response_id: str) -> None:
        await self._contents.delete(self.user_id, Kind.RESPONSE, response_id)
