"""Kept responses, as their user sees them afterwards; and how many tokens one would read."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from forebay_gateway.authentication import principal_of
from forebay_gateway.callers.call import Call
from forebay_gateway.callers.principals import Principal
from forebay_gateway.canonical.fields import parse_object
from forebay_gateway.dialects.responses.errors import RESPONSES
from forebay_gateway.dialects.responses.request import NEEDED_FIELDS, ask_for_response
from forebay_gateway.http_in.over_aiohttp import AnswerOverAiohttp
from forebay_gateway.keeping.background import BackgroundResponse, BackgroundResponses
from forebay_gateway.keeping.contents import ContentStore, Kind, StoredContent
from forebay_gateway.keeping.elsewhere import Elsewhere
from forebay_gateway.keeping.kept_responses import KeptResponses
from forebay_gateway.pages.background import tell_events
from forebay_gateway.pages.counting import Counted
from forebay_gateway.pages.listed_items import cut_page, page_wish
from forebay_gateway.pages.models_and_tokens import answer_page, read_page_body
from forebay_gateway.pages.path_patterns import Addresses
from forebay_gateway.refused import BadField, NotKept
from forebay_gateway.reply import Reply
from forebay_gateway.serving import Means

Count = Callable[[Principal, str, dict[str, Any], Call], Awaitable[tuple[Counted, int | None]]]
"""(caller, model, chat request, call) → tokens, and the model's context length."""


class StoredPages:
    def __init__(self, means: Means, kept: KeptResponses, background: BackgroundResponses, count: Count) -> None:
        self._means = means
        self._contents: ContentStore = means.contents
        self._kept = kept
        self._background = background
        self._elsewhere = Elsewhere(means.contents, means.clock)
        self._count = count

    @property
    def addresses(self) -> Addresses:
        return {
            "/v1/responses/input_tokens": {"POST": self.count_input},
            "/v1/responses/{response_id}": {"GET": self.show, "DELETE": self.delete},
            "/v1/responses/{response_id}/input_items": {"GET": self.input_items},
            "/v1/responses/{response_id}/cancel": {"POST": self.cancel},
        }

    async def show(self, request: web.BaseRequest, call: Call, response_id: str) -> web.StreamResponse:
        """What `include` asks for is there if it ever was."""
        here = self._find_here(call, response_id)
        if request.query.get("stream", "false") not in ("false", "0", ""):
            return await self._stream(request, call, response_id, here)
        if here is not None:
            return answer_page(here.response, call)
        return answer_page(await self._elsewhere.as_it_stands(await self._find(call, response_id)), call)

    async def _stream(
        self, request: web.BaseRequest, call: Call, response_id: str, here: BackgroundResponse | None
    ) -> web.StreamResponse:
        after, idle_s = _starting_after(request.query), self._means.settings.waiting_s
        if here is not None:
            events = here.follow(after, idle_s)
        else:
            kept = await self._find(call, response_id)
            if "cuts" not in kept.body:
                raise BadField(
                    "`stream` is true, and only what was answered in the background can be streamed later: leave it out.",
                    param="stream",
                    code="invalid_value",
                )
            events = self._elsewhere.follow(kept, after, idle_s)
        client = AnswerOverAiohttp(request)
        await tell_events(Reply(client, call.request_id, RESPONSES), events)
        return client.response

    async def delete(self, request: web.BaseRequest, call: Call, response_id: str) -> web.StreamResponse:
        """One that is under way is cancelled."""
        principal = principal_of(self._means, call)
        here = self._find_here(call, response_id)
        if here is not None:
            await here.delete()
        else:
            await self._elsewhere.have_deleted(await self._find(call, response_id))
        was_there = await self._contents.delete(principal.user_id, Kind.RESPONSE, response_id)
        if not was_there and here is None:
            raise _no_such_response(response_id)
        return answer_page({"id": response_id, "object": "response", "deleted": True}, call)

    async def input_items(self, request: web.BaseRequest, call: Call, response_id: str) -> web.StreamResponse:
        """Of its own input: those of the responses before it are theirs."""
        kept = await self._find(call, response_id)
        return answer_page(cut_page(kept.body["input"], page_wish(request.query)), call)

    async def cancel(self, request: web.BaseRequest, call: Call, response_id: str) -> web.StreamResponse:
        """One that has ended stays as it is."""
        here = self._find_here(call, response_id)
        if here is not None:
            return answer_page(await here.cancel(), call)
        kept = await self._find(call, response_id)
        if "cuts" not in kept.body:
            raise BadField("Cannot cancel a synchronous response.", param="response_id")
        return answer_page(await self._elsewhere.cancel(kept), call)

    async def count_input(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        principal = principal_of(self._means, call)
        raw = await read_page_body(self._means, request)
        body = parse_object(raw, NEEDED_FIELDS)
        held = self._means.bodies.hold()
        try:
            room = self._kept.room(held.grow, len(raw))
            body = await self._kept.with_items(body, principal.user_id, room)
            asked = ask_for_response(body, await self._kept.ground_of(body, principal.user_id, room))
            counted, _ = await self._count(principal, asked.model, dict(asked.fields), call)
        finally:
            held.release()
        told = {"object": "response.input_tokens", "input_tokens": counted.count}
        return answer_page(told, call, is_estimate=counted.is_estimate)

    def _find_here(self, call: Call, response_id: str) -> BackgroundResponse | None:
        return self._background.find(principal_of(self._means, call).user_id, response_id)

    async def _find(self, call: Call, response_id: str) -> StoredContent:
        principal = principal_of(self._means, call)
        kept = await self._contents.get(principal.user_id, Kind.RESPONSE, response_id)
        if kept is None:
            raise _no_such_response(response_id)
        return kept


def _starting_after(query: Mapping[str, str]) -> int:
    """The number of the last event that the client has; -1: it has none. Raises BadField."""
    told = query.get("starting_after", "-1")
    if not re.fullmatch(r"-1|[0-9]{1,9}", told, re.ASCII):
        raise BadField(
            f"`starting_after` is {told[:40]!r}; it must be the `sequence_number` of an event.",
            param="starting_after",
            code="invalid_value",
        )
    return int(told)


def _no_such_response(id: str) -> NotKept:
    return NotKept(f"Response with id '{id[:80]}' not found.")
