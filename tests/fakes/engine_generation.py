"""Generations and embeddings of the fake engine, from a parsed request to the last byte, faults on the way included. Who may
ask, what is written down on arrival and what an error looks like is `engine`'s business."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import struct
import time
from collections.abc import Callable, Coroutine, Mapping
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
    openai_usage,
)
from tests.fakes.engine_faults import FaultKind, Hit
from tests.fakes.engine_flavours import Traits
from tests.fakes.engine_orders import (
    Answer,
    BadOrder,
    Order,
    Pace,
    Usage,
    answer,
    order_chat,
    order_completion,
    order_ollama,
    texts_in,
)
from tests.fakes.engine_pages import Pages, UnknownModel
from tests.fakes.engine_record import Ending, Record, Seen
from tests.fakes.engine_slots import Slots

EMBEDDING_WIDTH = 8

SEEN = web.RequestKey("seen", Seen)
HIT = web.RequestKey("hit", Hit)

GENERATION: dict[str, tuple[Callable[[Mapping[str, Any]], Order], Callable[..., Dialect]]] = {
    "/v1/chat/completions": (order_chat, OpenAIChat),
    "/v1/completions": (order_completion, OpenAICompletion),
    "/api/chat": (order_ollama, OllamaChat),
    "/api/generate": (order_ollama, OllamaGenerate),
}
EMBEDDINGS = ("/v1/embeddings", "/api/embed")


class Refused(Exception):
    """An error answer, before the first byte of any other."""

    def __init__(
        self, status: int, message: str, kind: str, *, retry_after_s: float | None = None, **more: Any
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.retry_after_s = retry_after_s
        self.more = more
        """Further fields of the error object."""


class Broken(Exception):
    """An injected fault ended the answer, and the connection with it."""


class Generator:
    def __init__(self, *, pages: Pages, slots: Slots, record: Record, traits: Traits, pace: Pace) -> None:
        self.pace = pace
        self._pages = pages
        self._slots = slots
        self._record = record
        self._traits = traits
        self._jobs: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    async def generate(self, request: web.Request) -> web.StreamResponse:
        seen, hit = request[SEEN], request[HIT]
        parse, speak = GENERATION[request.path]
        body = self._object(seen)
        order = parse(body)
        if self._traits.ignores_n and order.n > 1:
            order = replace(order, n=1)
        pace = self.pace.wished(order.model, seen.headers, body)
        seen.model, seen.width, seen.streamed = order.model, order.width, order.stream
        self._check_order(order)
        if request.path.startswith("/api/") and not (body.get("messages") or body.get("prompt")):
            return self._loaded(seen, order)
        planned = answer(order, pace, self._pages.context_tokens)
        tells_usage = hit[FaultKind.NO_USAGE] is None
        if order.stream:
            async with self._slots.hold(order.width):
                try:
                    dialect = speak(order, planned, self._traits, tells_usage=tells_usage)
                    return await self._stream(request, order, planned, pace, dialect)
                finally:
                    seen.freed_at = time.monotonic()
        dialect = speak(order, planned, self._traits, tells_usage=tells_usage)
        await self._while_connected(self._make_all(seen, order, planned, pace))
        return await self._plain(request, dialect.whole())

    def _object(self, seen: Seen) -> Mapping[str, Any]:
        if isinstance(seen.body, dict):
            return seen.body
        raise Refused(400, "the body is no JSON object", "invalid_request_error")

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
                f"This model's maximum context length is {self._pages.context_tokens} tokens, "
                f"but the request has {longest} input tokens.",
                self._traits.context_error_type,
                n_prompt_tokens=longest,
                n_ctx=self._pages.context_tokens,
            )

    def _loaded(self, seen: Seen, order: Order) -> web.Response:
        """Ollama's answer to an empty prompt, which only loads the model."""
        seen.ending = Ending.FINISHED
        head = {"model": order.model, "created_at": ollama_time(), "done": True, "done_reason": "load"}
        empty = {"message": {"role": "assistant", "content": ""}} if seen.path == "/api/chat" else {"response": ""}
        return web.json_response(head | empty)

    async def _stream(
        self, request: web.Request, order: Order, planned: Answer, pace: Pace, dialect: Dialect
    ) -> web.StreamResponse:
        seen, hit = request[SEEN], request[HIT]
        response = web.StreamResponse(headers={"content-type": dialect.stream_type, "cache-control": "no-cache"})
        seen.started_at = time.monotonic()
        await response.prepare(request)
        comments = hit[FaultKind.COMMENTS] is not None
        for i, piece in enumerate(planned.pieces):
            await _until(seen.started_at + pace.ttft_s + i / pace.tokens_per_s)
            if await self._act_between(request, response, dialect, chunks=i):
                return response
            for choice in range(order.width):
                lines = [b": still here\n\n"] if comments else []
                if i == 0 and (opening := dialect.opening(choice)):
                    lines.append(opening)
                if piece:
                    lines.append(dialect.token(choice, piece))
                for line in lines:
                    await response.write(line)
            self._count_token(seen, order)
        if await self._act_between(request, response, dialect, chunks=len(planned.pieces)):
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

    async def _while_connected(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it to its end, or until the client goes, where this engine cancels then."""
        job = asyncio.create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        try:
            await asyncio.shield(job)
        except asyncio.CancelledError:
            if self._traits.cancels_plain:
                job.cancel()
            raise

    async def _make_all(self, seen: Seen, order: Order, planned: Answer, pace: Pace) -> None:
        async with self._slots.hold(order.width):
            try:
                seen.started_at = time.monotonic()
                for i in range(planned.tokens):
                    await _until(seen.started_at + pace.ttft_s + i / pace.tokens_per_s)
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

    def _finish(self, seen: Seen, order: Order, planned: Answer) -> None:
        if seen.ending is Ending.RUNNING:  # a client may have gone while an engine that does not care made the rest
            seen.ending = Ending.FINISHED
        self._record.totals[planned.finish] += 1

    async def _plain(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        hit = request[HIT]
        if hit[FaultKind.NO_USAGE] is not None:
            body.pop("usage", None)
        raw = json.dumps(body).encode()
        if hit[FaultKind.MALFORMED_SSE]:
            raw = raw[: len(raw) // 2]
        cut = hit[FaultKind.CUT_AFTER]
        if cut is None:
            return web.Response(body=raw, content_type="application/json", charset="utf-8")
        response = web.StreamResponse(headers={"content-type": "application/json; charset=utf-8"})
        response.content_length = len(raw)
        await response.prepare(request)
        await response.write(raw[: len(raw) // 2])
        close_connection(request, reset=cut.reset)
        raise Broken

    async def embed(self, request: web.Request) -> web.StreamResponse:
        seen = request[SEEN]
        body = self._object(seen)
        texts = texts_in(body, "input")
        seen.model, seen.width = str(body.get("model") or ""), 1
        if not self._traits.answers_any_model and not self._pages.knows(seen.model):
            raise UnknownModel(seen.model)
        pace = self.pace.wished(seen.model, seen.headers, body)
        tokens = sum(len(text.split()) for text in texts)
        await self._while_connected(self._embed_all(seen, pace))
        self._record.totals["prompt_tokens"] += tokens
        vectors = [_embedding(text) for text in texts]
        if request.path == "/api/embed":
            counted = {"total_duration": 1, "load_duration": 1, "prompt_eval_count": tokens}
            return await self._plain(request, {"model": seen.model, "embeddings": vectors, **counted})
        data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
        usage = openai_usage(Usage(tokens, 0))
        return await self._plain(request, {"object": "list", "data": data, "model": seen.model, "usage": usage})

    async def _embed_all(self, seen: Seen, pace: Pace) -> None:
        async with self._slots.hold(1):
            seen.started_at = time.monotonic()
            await asyncio.sleep(pace.ttft_s)
        seen.freed_at = time.monotonic()
        seen.ending = Ending.FINISHED


async def _until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))


def close_connection(request: web.Request, *, reset: bool) -> None:
    """FIN after what was written; with `reset`, RST at once."""
    transport = request.transport
    if transport is None:
        return
    if reset:
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()


def _embedding(text: str) -> list[float]:
    """The same unit vector for the same text."""
    raw = [byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()[:EMBEDDING_WIDTH]]
    length = sum(x * x for x in raw) ** 0.5
    return [x / length for x in raw]
