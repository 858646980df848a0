"""Responses that are kept, and what a request for another builds on.

What is kept of one is the response itself, as it ended, and the items of its own input: a chain of them is a conversation.
Keeping never spoils an answer. Where it fails, the answer says so: `store` is false, or `conversation` is null."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from forebay.clock import Clock
from forebay.errors import ForebayError, NotPossible
from forebay.sealed import Seal
from forebay_gateway.asked import Asked
from forebay_gateway.callers.principals import Principal
from forebay_gateway.canonical.fields import parse_object
from forebay_gateway.canonical.speech import dumped
from forebay_gateway.dialects.responses.answer import ResponseTranslation
from forebay_gateway.dialects.responses.items import new_id
from forebay_gateway.dialects.responses.keeping import Ground, Wish, input_items, tellable, wish_in
from forebay_gateway.dialects.responses.request import NEEDED_FIELDS, ask_for_response
from forebay_gateway.dialects.responses.telling import UNFINISHED
from forebay_gateway.keeping.afterwork import Afterwork
from forebay_gateway.keeping.background import BackgroundResponse, BackgroundResponses
from forebay_gateway.keeping.contents import ContentStore, Kind, StoredContent
from forebay_gateway.keeping.conversations import Conversations
from forebay_gateway.keeping.elsewhere import Elsewhere
from forebay_gateway.keeping.item_references import with_items
from forebay_gateway.keeping.response_record import ResponseRecord
from forebay_gateway.keeping.room import Hold, Room
from forebay_gateway.keeping.sealed_thoughts import SealedThoughts
from forebay_gateway.refused import BadField, NotKept

log = logging.getLogger(__name__)

Json = dict[str, Any]

_WITHIN_S = 2.0
"""An answer's end waits so long for being kept."""
_LONGEST_CHAIN = 100


@dataclass(frozen=True, slots=True)
class LookedUp:
    items: list[Json]
    conversation: StoredContent | None = None


class KeptResponses:
    def __init__(
        self,
        contents: ContentStore,
        conversations: Conversations,
        background: BackgroundResponses,
        afterwork: Afterwork,
        clock: Clock,
        seal: Seal,
        most_bytes: int,
    ) -> None:
        """`seal`: conceals thoughts; all gateways have the same. `most_bytes`: of a request and all that it builds on."""
        self._contents = contents
        self._conversations = conversations
        self._background = background
        self._elsewhere = Elsewhere(contents, clock)
        self._afterwork = afterwork
        self._clock = clock
        self._seal = seal
        self._most_bytes = most_bytes

    def room(self, hold: Hold, size: int) -> Room:
        """For what a request of that size builds on."""
        return Room(self._most_bytes, hold, "The request and the kept items that it names or goes on from", taken=size)

    async def prepare(self, raw: bytes, principal: Principal, hold: Hold) -> tuple[Asked, int]:
        """The request, and of how many bytes its prompt was made. `hold` takes what was looked up from the budget. Raises
        BadField, BodyTooLarge, Refused, StateUnavailable."""
        user_id = principal.user_id
        told = parse_object(raw, NEEDED_FIELDS)
        wish = wish_in(told)
        room = self.room(hold, len(raw))
        body = await with_items(told, user_id, self._contents, room)
        size = self._most_bytes - room.left
        looked_up = await self._look_up(wish, user_id, room)
        stores = await self._may_store(wish, user_id)
        asked = ask_for_response(body, self._ground(looked_up.items, wish, user_id, stores))
        if stores or looked_up.conversation is not None:
            self._have_kept(asked, body, wish, user_id, stores, looked_up.conversation)
        return asked, size + (len(dumped({"items": looked_up.items})) if looked_up.items else 0)

    async def ground_of(self, body: Json, user_id: str, room: Room) -> Ground:
        """What a request builds on, whose answer is not going to be kept. Raises BadField, BodyTooLarge, Refused,
        StateUnavailable."""
        wish = wish_in(body)
        return self._ground((await self._look_up(wish, user_id, room)).items, wish, user_id, False)

    async def with_items(self, body: Json, user_id: str, room: Room) -> Json:
        """The request, with the items that its input names. Raises as `ground_of` does."""
        return await with_items(body, user_id, self._contents, room)

    def _ground(self, items: list[Json], wish: Wish, user_id: str, stores: bool) -> Ground:
        return Ground(items, _echo(wish, stores), SealedThoughts(self._seal, user_id))

    async def _look_up(self, wish: Wish, user_id: str, room: Room) -> LookedUp:
        if wish.previous_response_id is not None:
            return LookedUp(await self._chain(wish.previous_response_id, user_id, room))
        if wish.conversation_id is not None:
            conversation = await self._conversations.find(user_id, wish.conversation_id, param="conversation")
            return LookedUp(tellable(await self._conversations.items(conversation, room)), conversation)
        return LookedUp([])

    async def _chain(self, response_id: str, user_id: str, room: Room) -> list[Json]:
        param = "previous_response_id"
        try:
            chain = await self._contents.chain(user_id, Kind.RESPONSE, response_id, _LONGEST_CHAIN)
        except NotPossible as error:
            raise BadField(f"{error.message} Send the whole input instead.", param=param) from error
        if not chain:
            raise NotKept(
                f"Previous response with id '{response_id[:80]}' not found. It, or one that it goes on from, was not "
                "stored, was deleted or has expired: send the whole input instead.",
                param=param,
                code="previous_response_not_found",
            )
        room.take(sum(kept.body_bytes for kept in chain))
        last = await self._elsewhere.as_it_stands(chain[-1])
        if last["status"] in UNFINISHED:
            raise BadField(
                f"Previous response with id '{response_id}' has not ended yet (it is {last['status']}): go on from it when "
                "it has.",
                param=param,
                code="previous_response_not_ended",
            )
        return [item for kept in chain for item in (*kept.body["input"], *tellable(kept.body["response"]["output"]))]

    async def _may_store(self, wish: Wish, user_id: str) -> bool:
        """Raises StateUnavailable when the client insists and nobody is there to keep it."""
        if wish.background:
            return True
        if wish.store is None:
            return wish.builds_on_kept or not self._contents.is_away
        if wish.store and not wish.builds_on_kept:
            # There is none: an answer, whichever, shows that there is someone to keep the one that comes.
            await self._contents.get(user_id, Kind.RESPONSE, new_id("resp"))
        return wish.store

    def _have_kept(
        self, asked: Asked, body: Json, wish: Wish, user_id: str, stores: bool, conversation: StoredContent | None
    ) -> None:
        translation = asked.translation
        assert isinstance(translation, ResponseTranslation)
        items = input_items(body, translation.named)
        dumped({"response": {"input": items}})  # raises BadField when that could not be kept
        record = ResponseRecord(
            items,
            user_id=user_id,
            previous_id=wish.previous_response_id or "",
            conversation=conversation,
            contents=self._contents,
            conversations=self._conversations,
            clock=self._clock,
        )
        if wish.background:
            response = BackgroundResponse(self._background, translation, record, streams=asked.stream)
            asked.keeping = asked.background = response
            asked.stream = True  # whoever follows it gets it piece by piece
        else:
            asked.keeping = KeptResponse(translation, record, stores=stores, afterwork=self._afterwork)


class KeptResponse:
    """One answer, on its way to being kept (asked.Keeping)."""

    def __init__(
        self, translation: ResponseTranslation, record: ResponseRecord, *, stores: bool, afterwork: Afterwork
    ) -> None:
        self._translation, self._record = translation, record
        self._stores, self._afterwork = stores, afterwork
        self._is_over = False
        self._is_stored = self._is_added = False

    async def ended(self, last: bytes) -> bytes:
        self._is_over = True
        response = self._translation.response
        assert response is not None, "it has just been told"
        await self._in_time(self._afterwork.start(self._keep(response, appends=True), "keep-response"))
        if self._stores and not self._is_stored:
            response["store"] = False
        elif self._record.conversation is None or self._is_added:
            return last
        if not self._is_added and "conversation" in response:
            response["conversation"] = None
        return self._translation.tell_again()

    async def broken(self, message: str) -> None:
        task = self._start_keeping_broken("failed", {"code": "server_error", "message": message})
        if task is not None:
            await self._in_time(task)

    def left(self) -> None:
        self._start_keeping_broken("cancelled", None)

    def _start_keeping_broken(self, status: str, error: Json | None) -> asyncio.Task[None] | None:
        response = None if self._is_over else self._translation.broken(status, error)
        self._is_over = True
        if response is None or not self._stores:
            return None
        return self._afterwork.start(self._keep(response, appends=False), "keep-response")

    async def _in_time(self, task: asyncio.Task[None]) -> None:
        """Whoever waits may be cancelled; the task goes on."""
        await asyncio.wait({task}, timeout=_WITHIN_S)
        task.cancel()

    async def _keep(self, response: Json, *, appends: bool) -> None:
        try:
            if appends:
                await self._record.add_to_conversation(response)
                self._is_added = True
            if self._stores:
                await self._record.store(response)
                self._is_stored = True
        except ForebayError as error:
            log.warning(
                "response not kept",
                extra={"action": "not_kept", "response": response["id"], "why": str(error.reason)},
            )


def _echo(wish: Wish, stores: bool) -> Json:
    echo: Json = {"store": stores, "previous_response_id": wish.previous_response_id}
    if wish.background:
        echo["background"] = True
    if wish.conversation_id is not None:
        echo["conversation"] = {"id": wish.conversation_id}
    return echo
