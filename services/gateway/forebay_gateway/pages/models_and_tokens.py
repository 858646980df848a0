"""What is answered without a slot: lists of models, in each dialect's shape, and counts of tokens.

A page needs a valid key and nothing else; it leaves no row in the ledger, since nothing is generated."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from forebay.errors import NotAllowed
from forebay_gateway.asked import Asked
from forebay_gateway.authentication import principal_of
from forebay_gateway.body import read_body
from forebay_gateway.callers.call import Call
from forebay_gateway.callers.principals import Principal
from forebay_gateway.canonical.fields import parse_object
from forebay_gateway.canonical.file_parts import has_files
from forebay_gateway.canonical.speech import dumped
from forebay_gateway.dialects.anthropic import models as anthropic_models
from forebay_gateway.dialects.anthropic.errors import ANTHROPIC
from forebay_gateway.dialects.anthropic.request import parse_messages
from forebay_gateway.dialects.openai import models as openai_models
from forebay_gateway.dialects.openai.errors import OPENAI
from forebay_gateway.dialects.openai.tokenizing import parse_tokenize
from forebay_gateway.fleet import OfferedModel
from forebay_gateway.keeping.named_files import Reader
from forebay_gateway.pages.counting import Counted, count_tokens
from forebay_gateway.refused import ModelUnknown
from forebay_gateway.rules.catalogue import find_model, may_ask, offered_as, offered_to
from forebay_gateway.serving import Means

MODELS_PATH = "/v1/models"


class Pages:
    def __init__(self, means: Means) -> None:
        self._means = means
        self._created = int(means.clock.now())
        """Of every model, in seconds since the epoch: the dialects want a time, and engines tell none."""

    async def list_models(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        principal = principal_of(self._means, call)
        offered = self._offered_to(principal)
        if call.is_anthropic:
            return answer_page(anthropic_models.list_models(offered, self._created, request.query), call)
        return answer_page(openai_models.list_models(offered, self._created), call)

    async def show_model(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        principal = principal_of(self._means, call)
        shape = anthropic_models if call.is_anthropic else openai_models
        name = call.path.removeprefix(f"{MODELS_PATH}/").rstrip("/")
        model = offered_as(principal, name, self._means.fleet, self._means.model_rules)
        if model is None:
            raise ModelUnknown(
                f"There is no model {name[:256]} for this API key. `GET /v1/models` lists those there are."
            )
        return answer_page(shape.show_model(model, self._created), call)

    async def count_message_tokens(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        """Anthropic's: a message request without `max_tokens`."""
        principal = principal_of(self._means, call)
        body = parse_object(await read_page_body(self._means, request), "`model` and `messages`")
        asked = parse_messages(dumped({**body, "max_tokens": 1}))
        counted, _ = await self.count(principal, asked.model, dict(asked.fields), call, asked)
        return answer_page({"input_tokens": counted.count}, call, is_estimate=counted.is_estimate)

    async def tokenize(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        principal = principal_of(self._means, call)
        model, fields = parse_tokenize(await read_page_body(self._means, request))
        counted, longest = await self.count(principal, model, fields, call)
        told: dict[str, Any] = {"count": counted.count, "max_model_len": longest}
        if counted.tokens is not None:
            told["tokens"] = counted.tokens
        return answer_page({**told, "is_estimate": counted.is_estimate}, call, is_estimate=counted.is_estimate)

    def _offered_to(self, principal: Principal) -> list[OfferedModel]:
        return offered_to(principal, self._means.fleet, self._means.model_rules)

    async def count(
        self, principal: Principal, name: str, fields: dict[str, Any], call: Call, asked: Asked | None = None
    ) -> tuple[Counted, int | None]:
        means = self._means
        model = find_model(name, principal.pool, means.fleet, means.model_rules)
        if not may_ask(principal, name, model or name):
            raise NotAllowed(f"This API key does not allow the model {name}. `GET /v1/models` lists what it allows.")
        if model is None or not means.fleet.has(model, principal.pool):
            raise ModelUnknown(f"No backend has the model {name}. `GET /v1/models` lists those there are.")
        serving = means.fleet.serving(model, principal.pool)
        if asked is not None:
            asked.demand_suited(serving)
        held = means.bodies.hold()
        try:
            if has_files(fields) and (asked is None or not asked.leaves_fetching(serving)):
                reads_documents = means.fleet.reads_documents(model, principal.pool)
                fetches = means.public_web.fetches_for(principal.user_id, held.into_memory)
                most = means.settings.max_body_bytes
                reader = Reader(principal.user_id, most, reads_documents, held.grow, fetches)
                await means.named_files.put_into(fields, reader)
            counted = await count_tokens(
                fields,
                model=model,
                pool=principal.pool,
                fleet=means.fleet,
                upstream=means.upstream,
                ratios=means.ratios,
                call=call,
                asked=asked,
            )
        finally:
            held.release()
        return counted, means.fleet.context_length(model, principal.pool)


async def read_page_body(means: Means, request: web.BaseRequest) -> bytes:
    """Raises as `read_body` does."""
    settings, held = means.settings, means.bodies.hold()
    try:
        return await read_body(request, held, most_bytes=settings.max_body_bytes, idle_s=settings.body_idle_s)
    finally:
        held.release()


def answer_page(body: dict[str, Any], call: Call, *, is_estimate: bool = False) -> web.Response:
    dialect = ANTHROPIC if call.is_anthropic else OPENAI
    headers = {**dialect.id_headers(call.request_id), "content-type": "application/json"}
    if is_estimate:
        headers["x-forebay-estimated"] = "true"
    return web.Response(body=orjson.dumps(body), headers=headers)
