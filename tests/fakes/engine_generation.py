"""Generations of the fake engine, from a parsed request to the last byte, faults on the way included. Who may ask, what is
written down on arrival and what an error looks like is `engine`'s business."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from aiohttp import web

from tests.fakes.engine_dialects import (
    Dialect,
    OllamaChat,
    OllamaGenerate,
    OpenAIChat,
    OpenAICompletion,
    ollama_time,
)
from tests.fakes.engine_faults import FaultKind
from tests.fakes.engine_flavours import Traits
from tests.fakes.engine_hearing import Unheard, heard
from tests.fakes.engine_jobs import Jobs
from tests.fakes.engine_orders import (
    Answer,
    BadOrder,
    Order,
    Pace,
    answer,
    order_chat,
    order_completion,
    order_ollama,
)
from tests.fakes.engine_pages import Pages, UnknownModel
from tests.fakes.engine_record import Ending, Seen
from tests.fakes.engine_refusals import Refused, json_object
from tests.fakes.engine_sending import HIT, SEEN, Broken, close_connection, send_json, until

GENERATION: dict[str, tuple[Callable[[Mapping[str, Any], Traits], Order], Callable[..., Dialect]]] = {
    "/v1/chat/completions": (order_chat, OpenAIChat),
    "/v1/completions": (order_completion, OpenAICompletion),
    "/api/chat": (order_ollama, OllamaChat),
    "/api/generate": (order_ollama, OllamaGenerate),
}


class Generator:
    def __init__(self, *, pages: Pages, traits: Traits, jobs: Jobs, pace: Pace) -> None:
        self.pace = pace
        self._pages = pages
        self._slots = pages.slots
        self._record = pages.record
        self._traits = traits
        self._jobs = jobs

    async def generate(self, request: web.Request) -> web.StreamResponse:
        seen, hit = request[SEEN], request[HIT]
        parse, speak = GENERATION[request.path]
        body = json_object(seen)
        if self._traits.refuses_forms and body.get("response_format"):
            raise Refused(400, "response_format is not supported by this server", "invalid_request_error")
        try:
            order = parse(heard(request.path, body, self._traits), self._traits)
        except Unheard as error:
            raise BadOrder(str(error)) from error
        if self._traits.ignores_n and order.n > 1:
            order = replace(order, n=1)
        if order.n > 1 and body.get("temperature") == 0 and not self._traits.samples_greedily:
            raise BadOrder(f"n must be 1 when using greedy sampling, got {order.n}.")
        if order.max_tokens == 0 and not order.echoes and not self._traits.takes_no_tokens:
            raise BadOrder("max_tokens must be at least 1, got 0.")
        pace = self.pace.wished(order.model, seen.headers, body)
        seen.model, seen.width, seen.streamed = order.model, order.width, order.stream
        self._check_order(order)
        if request.path.startswith("/api/"):
            if not self._pages.generates(order.model):
                raise Refused(400, f'"{order.model}" does not support generate', "invalid_request_error")
            became = self._pages.use(order.model, body.get("keep_alive"))
            if not (body.get("messages") or body.get("prompt")):
                return self._loaded(seen, order, became)
        planned = [answer(alone, pace, self._pages.context_tokens) for alone in order.apart()]
        tells_usage = hit[FaultKind.NO_USAGE] is None
        if order.stream:
            async with self._slots.hold(order.width):
                try:
                    dialect = speak(order, planned, self._traits, tells_usage=tells_usage)
                    return await self._stream(request, order, planned, pace, dialect)
                finally:
                    seen.freed_at = time.monotonic()
        dialect = speak(order, planned, self._traits, tells_usage=tells_usage)
        await self._jobs.while_connected(self._make_all(seen, order, planned, pace))
        return await send_json(request, dialect.whole())

    def _check_order(self, order: Order) -> None:
        if not self._traits.answers_any_model and not self._pages.knows(order.model):
            raise UnknownModel(order.model)
        if order.n > self._slots.total:
            raise BadOrder(f"Field 'n': Value must be between 1 <= value <= {self._slots.total}, but got {order.n}")
        if order.width > self._slots.total:
            raise BadOrder(f"{order.width} generations in one request, and there are {self._slots.total} slots")
        longest = max(order.prompt_tokens)
        if longest >= self._pages.context_tokens:
            raise Refused(
                400,
                self._traits.context_error.format(context=self._pages.context_tokens, longest=longest),
                self._traits.context_error_type,
                n_prompt_tokens=longest,
                n_ctx=self._pages.context_tokens,
            )

    def _loaded(self, seen: Seen, order: Order, became: str) -> web.Response:
        """Ollama's answer to an empty prompt, which only loads the model, or unloads it."""
        seen.ending = Ending.FINISHED
        head = {"model": order.model, "created_at": ollama_time(), "done": True, "done_reason": became}
        empty = {"message": {"role": "assistant", "content": ""}} if seen.path == "/api/chat" else {"response": ""}
        return web.json_response(head | empty)

    async def _stream(
        self, request: web.Request, order: Order, planned: Sequence[Answer], pace: Pace, dialect: Dialect
    ) -> web.StreamResponse:
        seen, hit = request[SEEN], request[HIT]
        response = web.StreamResponse(headers={"content-type": dialect.stream_type, "cache-control": "no-cache"})
        seen.started_at = time.monotonic()
        await response.prepare(request)
        comments = hit[FaultKind.COMMENTS] is not None
        steps = max(len(answer.pieces) for answer in planned)
        if opening := dialect.preface():
            await response.write(opening)
        for i in range(steps):
            await until(seen.started_at + pace.ttft_s + i / pace.tokens_per_s)
            if await self._act_between(request, response, dialect, chunks=i):
                return response
            for choice in range(order.width):
                lines = [b": still here\n\n"] if comments else []
                if i == 0 and (opening := dialect.opening(choice)):
                    lines.append(opening)
                pieces = planned[choice // order.n].pieces
                if i < len(pieces) and (shown := dialect.token(choice, pieces[i])):
                    lines.append(shown)
                for line in lines:
                    await response.write(line)
            self._count_token(seen, order)
        if await self._act_between(request, response, dialect, chunks=steps):
            return response
        for choice in range(order.width):
            if closing := dialect.closing(choice):
                await response.write(closing)
        if tail := dialect.tail(done=hit[FaultKind.NO_DONE] is None):
            await response.write(tail)
        await response.write_eof()
        self._finish(seen, order, planned)
        return response

    async def _act_between(
        self, request: web.Request, response: web.StreamResponse, dialect: Dialect, *, chunks: int
    ) -> bool:
        """The faults due after so many chunks. True: the stream has ended with an error event."""
        hit = request[HIT]
        if stall := hit.due(FaultKind.STALL_AFTER, chunks):
            await asyncio.sleep(stall.seconds)
        if hit.due(FaultKind.MALFORMED_SSE, chunks):
            await response.write(dialect.malformed())
        if cut := hit.due(FaultKind.CUT_AFTER, chunks):
            close_connection(request, reset=cut.reset)
            raise Broken
        if error := hit.due(FaultKind.ERROR_EVENT_AFTER, chunks):
            request[SEEN].ending = Ending.BROKEN
            await response.write(dialect.error(error.message))
            await response.write_eof()
            return True
        return False

    async def _make_all(self, seen: Seen, order: Order, planned: Sequence[Answer], pace: Pace) -> None:
        async with self._slots.hold(order.width):
            try:
                seen.started_at = time.monotonic()
                for i in range(max(answer.tokens for answer in planned)):
                    await until(seen.started_at + pace.ttft_s + i / pace.tokens_per_s)
                    self._count_token(seen, order)
            finally:
                seen.freed_at = time.monotonic()
        self._finish(seen, order, planned)

    def _count_token(self, seen: Seen, order: Order) -> None:
        if seen.first_token_at is None:
            seen.first_token_at = time.monotonic()
            self._record.totals["prompt_tokens"] += sum(order.prompt_tokens)
        seen.tokens_made += 1
        self._record.totals["completion_tokens"] += order.width

    def _finish(self, seen: Seen, order: Order, planned: Sequence[Answer]) -> None:
        if seen.ending is Ending.RUNNING:  # a client may have gone while an engine that does not care made the rest
            seen.ending = Ending.FINISHED
        self._record.totals[planned[0].finish] += 1
