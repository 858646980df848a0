"""A stand-in for the gateways to which admin sends batches: it takes delegations and nothing else, each once, as they do,
and says on the bus how each request ended. What it does is told by the request's own words."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from forebay.delegation import SCHEME, VALID_S, Delegations
from forebay.wire.v1 import types_pb2, usage_pb2

FINISHED, CANCELLED = types_pb2.OUTCOME_FINISHED, types_pb2.OUTCOME_CANCELLED
FAILED, REFUSED = types_pb2.OUTCOME_FAILED, types_pb2.OUTCOME_REFUSED
Publish = Callable[[bytes], Awaitable[None]]


class BatchGateway:
    """`async with`; then at `url`."""

    def __init__(self, pepper: bytes, publish: Publish) -> None:
        self._delegations = Delegations(pepper)
        self._publish = publish
        self._taken: set[bytes] = set()
        self._runner: web.ServerRunner | None = None
        self._late: list[usage_pb2.UsageRecord] = []
        self._broken: set[str] = set()
        self.url = ""
        self.takes_s = 0.0
        self.refusals: list[tuple[int, dict[str, str]]] = []
        """Statuses and headers of the next answers, before anything is done."""
        self.holds_rows = False
        """Rows come when they are let go."""
        self.key_word = ""
        """Why keys do not work."""
        self.running: Counter[str] = Counter()
        """By key id."""
        self.most_running: Counter[str] = Counter()
        self.ledger_ids: list[bytes] = []
        self.finished: Counter[str] = Counter()
        """By the prompt, which tests make unlike any other."""
        self.request_ids: list[str] = []

    async def __aenter__(self) -> BatchGateway:
        self._runner = web.ServerRunner(web.Server(self._answer, handler_cancellation=True), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", int(self.url.rpartition(":")[2] or 0))
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def let_rows_go(self) -> None:
        self.holds_rows = False
        late, self._late = self._late, []
        for row in late:
            await self._write(row)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        delegation = self._delegations.read(token, time.time()) if scheme == SCHEME else None
        if delegation is None or delegation.ledger_id in self._taken:
            return _refusal(401, "invalid_key")
        assert time.time() < delegation.expires_at <= time.time() + VALID_S
        self._taken.add(delegation.ledger_id)
        self.ledger_ids.append(delegation.ledger_id)
        self.request_ids.append(request.headers["x-request-id"])
        row = usage_pb2.UsageRecord(
            ledger_id=delegation.ledger_id,
            request_id=request.headers["x-request-id"],
            gateway="gateway-1",
            key_id=delegation.key_id,
            user_id="u",
            route=request.path,
            dialect="openai",
            started_at_us=int(time.time() * 1e6),
        )
        self.running[delegation.key_id] += 1
        for key_id, number in self.running.items():
            self.most_running[key_id] = max(number, self.most_running[key_id])
        row.outcome = CANCELLED
        try:
            return await self._serve(request, row)
        finally:
            self.running[delegation.key_id] -= 1
            # Also when the client has gone, which cancels us.
            await asyncio.shield(asyncio.ensure_future(self._write(row)))

    async def _serve(self, request: web.BaseRequest, row: usage_pb2.UsageRecord) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        prompt: str = body["messages"][0]["content"]
        if self.key_word:
            row.outcome = REFUSED
            return _refusal(401, self.key_word)
        if self.refusals:
            status, headers = self.refusals.pop(0)
            row.outcome = REFUSED
            return _refusal(status, "rate_limited", headers)
        if "wrong" in prompt:
            row.outcome = REFUSED
            return _refusal(400, "bad_request")
        if "engine fails" in prompt:
            row.outcome = FAILED
            return _refusal(502, "engine_failed")
        if "invalid output" in prompt:
            row.outcome = FINISHED
            self.finished[prompt] += 1
            return _refusal(502, "output_invalid", {"x-should-retry": "false"})
        await asyncio.sleep(self.takes_s + (3600 if "for ever" in prompt else 0))
        if "broken off" in prompt and prompt not in self._broken:
            self._broken.add(prompt)
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        row.outcome = FINISHED
        self.finished[prompt] += 1
        if "lost" in prompt:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        answer = {"id": "chatcmpl-1", "choices": [{"message": {"role": "assistant", "content": f"To {prompt}"}}]}
        return web.Response(
            body=orjson.dumps(answer, option=orjson.OPT_INDENT_2),
            headers={"content-type": "application/json", "x-request-id": row.request_id},
        )

    async def _write(self, row: usage_pb2.UsageRecord) -> None:
        if self.holds_rows:
            self._late.append(row)
        else:
            await self._publish(usage_pb2.UsageBatch(records=[row]).SerializeToString())


def _refusal(status: int, word: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status,
        body=orjson.dumps({"error": {"message": f"This is refused: {word}.", "code": word}}),
        headers={"content-type": "application/json", "x-forebay-reason": word, **(headers or {})},
    )


def line(number: int, prompt: str | None = None, **fields: Any) -> bytes:
    """Of an input file."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": prompt or f"request {number}"}]}
    told = {"custom_id": f"r-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body, **fields}
    return orjson.dumps(told) + b"\n"
