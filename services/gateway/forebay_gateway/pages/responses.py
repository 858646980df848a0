"""Kept responses, as their user sees them afterwards; and how many tokens one would read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from forebay_gateway.authentication import principal_of
from forebay_gateway.callers.call import Call
from forebay_gateway.callers.principals import Principal
from forebay_gateway.canonical.fields import parse_object
from forebay_gateway.dialects.responses.request import NEEDED_FIELDS, ask_for_response
from forebay_gateway.keeping.contents import ContentStore, Kind, StoredContent
from forebay_gateway.keeping.kept_responses import KeptResponses
from forebay_gateway.pages.counting import Counted
from forebay_gateway.pages.listed_items import cut_page, page_wish
from forebay_gateway.pages.models_and_tokens import answer_page, read_page_body
from forebay_gateway.pages.path_patterns import Addresses
from forebay_gateway.refused import BadField, NotKept
from forebay_gateway.serving import Means

Count = Callable[[Principal, str, dict[str, Any], Call], Awaitable[tuple[Counted, int | None]]]
"""(caller, model, chat request, call) → tokens, and the model's context length."""


class StoredPages:
    def __init__(self, means: Means, kept: KeptResponses, count: Count) -> None:
        self._means = means
        self._contents: ContentStore = means.contents
        self._kept = kept
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
        kept = await self._find(call, response_id)
        if request.query.get("stream", "false") not in ("false", "0", ""):
            raise BadField(
                "`stream` is true, and only what was answered in the background can be streamed later: leave it out.",
                param="stream",
                code="invalid_value",
            )
        return answer_page(kept.body["response"], call)

    async def delete(self, request: web.BaseRequest, call: Call, response_id: str) -> web.StreamResponse:
        principal = principal_of(self._means, call)
        if not await self._contents.delete(principal.user_id, Kind.RESPONSE, response_id):
            raise _no_such_response(response_id)
        return answer_page({"id": response_id, "object": "response", "deleted": True}, call)

    async def input_items(self, request: web.BaseRequest, call: Call, response_id: str) -> web.StreamResponse:
        """Of its own input: those of the responses before it are theirs."""
        kept = await self._find(call, response_id)
        return answer_page(cut_page(kept.body["input"], page_wish(request.query)), call)

    async def cancel(self, request: web.BaseRequest, call: Call, response_id: str) -> web.StreamResponse:
        await self._find(call, response_id)
        raise BadField("Cannot cancel a synchronous response.", param="response_id")

    async def count_input(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        principal = principal_of(self._means, call)
        body = parse_object(await read_page_body(self._means, request), NEEDED_FIELDS)
        asked = ask_for_response(body, await self._kept.ground_of(body, principal.user_id))
        counted, _ = await self._count(principal, asked.model, dict(asked.fields), call)
        told = {"object": "response.input_tokens", "input_tokens": counted.count}
        return answer_page(told, call, is_estimate=counted.is_estimate)

    async def _find(self, call: Call, response_id: str) -> StoredContent:
        principal = principal_of(self._means, call)
        kept = await self._contents.get(principal.user_id, Kind.RESPONSE, response_id)
        if kept is None:
            raise _no_such_response(response_id)
        return kept


def _no_such_response(id: str) -> NotKept:
    return NotKept(f"Response with id '{id[:80]}' not found.")
