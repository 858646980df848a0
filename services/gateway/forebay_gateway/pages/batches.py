"""OpenAI's batches: made, shown, listed and cancelled by their user. Admin runs them."""

from __future__ import annotations

from aiohttp import web

from forebay.errors import BadInput, NotFound, NotPossible
from forebay_gateway.authentication import principal_of
from forebay_gateway.callers.call import Call
from forebay_gateway.dialects.openai.batch import parse_batch, tell_batch
from forebay_gateway.keeping.batches import BatchStore
from forebay_gateway.pages.listed_items import as_page, page_wish
from forebay_gateway.pages.models_and_tokens import answer_page, read_page_body
from forebay_gateway.pages.path_patterns import Addresses
from forebay_gateway.refused import BadField, NotKept, NotServedHere
from forebay_gateway.serving import Means

BATCHES_PATH = "/v1/batches"
_ANTHROPICS = "/v1/messages/batches"


class BatchPages:
    def __init__(self, means: Means, batches: BatchStore) -> None:
        self._means = means
        self._batches = batches

    @property
    def addresses(self) -> Addresses:
        anthropics = {method: self.refuse_anthropics for method in ("GET", "POST", "DELETE")}
        return {
            BATCHES_PATH: {"GET": self.list_batches, "POST": self.create},
            f"{BATCHES_PATH}/{{batch_id}}": {"GET": self.show},
            f"{BATCHES_PATH}/{{batch_id}}/cancel": {"POST": self.cancel},
            _ANTHROPICS: anthropics,
            f"{_ANTHROPICS}/{{batch_id}}": anthropics,
            f"{_ANTHROPICS}/{{batch_id}}/cancel": anthropics,
            f"{_ANTHROPICS}/{{batch_id}}/results": anthropics,
        }

    async def create(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        principal = principal_of(self._means, call)
        if principal.is_visiting:
            raise NotServedHere(
                "A batch is asked where its API key belongs, and this key is for no pool of its own. Make the batch with a "
                f"key of the pool {principal.pool} (`forebay key create --pool`), or at the gateway's general address."
            )
        wish = parse_batch(await read_page_body(self._means, request))
        try:
            batch = await self._batches.create(principal, wish)
        except NotFound as error:
            raise NotKept(f"No such File object: {wish.input_file_id[:80]}", param="input_file_id") from error
        except BadInput as error:
            raise BadField(error.message, param="input_file_id", code="invalid_value") from error
        except NotPossible as error:
            raise BadField(error.message, code="too_many_batches") from error
        return answer_page(tell_batch(batch), call)

    async def list_batches(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        user_id = principal_of(self._means, call).user_id
        wish = page_wish(request.query)
        try:
            page = await self._batches.list(user_id, limit=wish.limit, after=wish.after)
        except NotFound as error:
            raise _no_such_batch(wish.after, param="after") from error
        return answer_page(as_page([tell_batch(batch) for batch in page.batches], has_more=page.has_more), call)

    async def show(self, request: web.BaseRequest, call: Call, batch_id: str) -> web.StreamResponse:
        user_id = principal_of(self._means, call).user_id
        try:
            return answer_page(tell_batch(await self._batches.get(user_id, batch_id)), call)
        except NotFound as error:
            raise _no_such_batch(batch_id) from error

    async def cancel(self, request: web.BaseRequest, call: Call, batch_id: str) -> web.StreamResponse:
        user_id = principal_of(self._means, call).user_id
        try:
            return answer_page(tell_batch(await self._batches.cancel(user_id, batch_id)), call)
        except NotFound as error:
            raise _no_such_batch(batch_id) from error
        except NotPossible as error:
            raise BadField(error.message, code="invalid_request") from error

    async def refuse_anthropics(self, request: web.BaseRequest, call: Call, batch_id: str = "") -> web.StreamResponse:
        raise NotServedHere(
            "Forebay has no message batches. Send the messages one by one with the header `x-forebay-priority: batch`, "
            f"which takes the room that others leave, or make a batch of chat completions at POST {BATCHES_PATH}."
        )


def _no_such_batch(id: str, *, param: str | None = None) -> NotKept:
    return NotKept(f"No batch found with id '{id[:80]}'.", param=param)
