"""Clients that go, stop reading, stop sending or send too much at once, on both ways in."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest
import pytest_asyncio

from tests.fakes.engine_orders import Pace
from tests.gateway.conformance.pair import HOT, ODD, QUICK, Pair, Side, open_pair, said
from tests.gateway.conformance.wire import Answer, Wire, head, request
from tests.gateway.house import OUTCOME, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
LONG = {"max_tokens": 2000, "ignore_eos": True}
SLOW = Pace(tokens_per_s=20, ttft_s=0.0, answer_tokens=2000)


@pytest.fixture(params=[0, 1], ids=["aiohttp", "hot"])
def side(pair: Pair, request: pytest.FixtureRequest) -> Side:
    number: int = request.param
    return pair.sides[number]


def go(wire: Wire, how: str) -> None:
    {"close": wire.close, "reset": wire.reset, "half-close": wire.half_close}[how]()


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_an_engine_stops_when_its_client_goes(side: Side, streamed: bool, how: str) -> None:
    side.engine.pace = SLOW
    name = f"gone-{how}-{streamed}"
    async with side.dial() as wire:
        await wire.send(request(CHAT, said(stream=streamed, **LONG), key=side.key, x_request_id=name))
        await eventually(lambda: side.bodies() and side.engine.record.requests[0].tokens_made >= 2)
        if streamed:
            assert (await wire.first(15)) == b"HTTP/1.1 200 OK"
        go(wire, how)
        await eventually(lambda: side.engine.slots.running == 0, "the engine goes on")
        await eventually(lambda: not side.house.scheduler.held, "the slot is not given back")
    row = await side.row(name)
    assert (OUTCOME(row.outcome), row.http_status) == ("OUTCOME_CANCELLED", 200 if streamed else 0)


async def test_hot_requests_are_answered_in_the_way_that_is_set(side: Side) -> None:
    """Else all of this would compare a thing with itself."""
    side.house.scheduler.slots["b1"] = 0
    async with side.dial() as wire:
        await wire.send(request(CHAT, said(), key=side.key))
        await eventually(lambda: side.house.scheduler.queue)
        await eventually(lambda: ("hot-request" in _names_of_tasks()) is side.is_hot)
    await eventually(lambda: not side.house.scheduler.queue)


def _names_of_tasks() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks()}


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
async def test_who_waits_with_more_behind_it_goes_with_all_of_it(side: Side, how: str) -> None:
    side.house.scheduler.slots["b1"] = 0
    async with side.dial() as wire:
        await wire.send(request(CHAT, said(), key=side.key) * 3)
        await eventually(lambda: side.house.scheduler.queue)
        go(wire, how)
        await eventually(lambda: not side.house.scheduler.queue, "it is still queued")
        await eventually(lambda: side.house.metric("forebay_gateway_running") == 0)
    assert side.bodies() == []


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
@pytest.mark.parametrize("sent", [b"", b"{", b'{"model"' * 20_000], ids=["nothing", "a byte", "much"])
async def test_who_goes_while_it_sends_has_one_record(side: Side, how: str, sent: bytes) -> None:
    name = f"unsent-{how}-{len(sent)}"
    headers = {"host": "x", "x-api-key": side.key, "content-length": "1000000", "x-request-id": name}
    async with side.dial() as wire:
        await wire.send(head(f"POST {CHAT} HTTP/1.1", headers) + sent)
        await eventually(lambda: side.house.metric("forebay_gateway_running") == 1)
        go(wire, how)
        row = await side.row(name)
    assert (OUTCOME(row.outcome), row.http_status) == ("OUTCOME_CANCELLED", 0)
    await eventually(lambda: side.house.metric("forebay_gateway_held_body_bytes") == 0)


async def test_a_slow_reader_slows_the_engine_and_misses_nothing(side: Side) -> None:
    odd = side.odd
    odd.floods = 800  # more than all buffers on the way hold
    async with side.dial(takes_bytes=1 << 16) as wire:
        await wire.send(request(CHAT, said(model=ODD, stream=True), key=side.key))
        await eventually(lambda: time.monotonic() - odd.stuck_since > 0.3 or odd.flooded == odd.floods)
        assert odd.flooded < odd.floods, "the engine goes on although nobody reads"
        answer = await wire.answer()
        assert await wire.is_open()
    assert (answer.body.count(b"x" * 32_000), answer.body.count(b"data: ")) == (800, 801)


async def test_a_slow_reader_that_goes_lets_the_engine_go(side: Side) -> None:
    odd = side.odd
    odd.floods = 1000
    async with side.dial(takes_bytes=1 << 16) as wire:
        await wire.send(request(CHAT, said(model=ODD, stream=True), key=side.key, x_request_id="unread"))
        await eventually(lambda: time.monotonic() - odd.stuck_since > 0.1 or odd.flooded == odd.floods)
        assert odd.flooded < odd.floods
        wire.reset()
        row = await side.row("unread")
    assert OUTCOME(row.outcome) == "OUTCOME_CANCELLED"
    await eventually(lambda: odd.talks == 0, "its connection stays")


async def test_too_much_at_once_spoils_no_answer(side: Side) -> None:
    """Requests without end behind one that runs: it is answered whole, and what is not answered is not half answered."""
    side.odd.may_end.clear()
    side.odd.answer = [
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n",
        b'data: {"choices":[{"index":0,"delta":{"content":"the first"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"the last"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
    ]
    more = request(CHAT, b"{" + b" " * 20_000, key=side.key, x_request_id="more") * 15
    async with side.dial() as wire:
        await wire.send(request(CHAT, said(model=ODD, stream=True), key=side.key))
        assert b"the first" in await wire.until(b"\n\n")
        sending = asyncio.create_task(wire.send(more))
        if side.is_hot:  # the other one stops reading after some
            await sending
            await wire.has_arrived()
        side.odd.may_end.set()
        told = await wire.until(b"\r\n0\r\n\r\n")
        assert b"the last" in told
        assert b"[DONE]" in told
        for _ in range(15):
            answer = await wire.answer_or_end()
            if answer is None:
                break
            assert (answer.status, answer["x-request-id"]) == (400, "more")
        await asyncio.wait([sending])
    await eventually(lambda: side.house.metric("forebay_gateway_running") == 0)


async def test_no_byte_waits_for_another_on_either_side(side: Side) -> None:
    """Nagle's algorithm would hold a small chunk back until the one before it was acknowledged."""
    side.engine.pace = SLOW
    async with side.dial() as wire:
        await wire.send(request(CHAT, said(stream=True, **LONG), key=side.key))
        assert await wire.first(15) == b"HTTP/1.1 200 OK"
        gateway, engine = (int(url.rpartition(":")[2]) for url in (side.house.url, side.engine.url))
        accepted = [one for own, other, one in _connections() if (own, other) == (gateway, wire.port)]
        upstream = [one for own, other, one in _connections() if other == engine]
        assert accepted == [True]
        assert upstream
        assert all(upstream)
        wire.close()
    await eventually(lambda: side.engine.slots.running == 0)


def _connections() -> Iterator[tuple[int, int, bool]]:
    """Of this process: its own port, the other's, and whether small pieces leave at once."""
    for name in os.listdir("/proc/self/fd"):
        try:
            copy = os.dup(int(name))
        except OSError:
            continue  # it was closed meanwhile
        try:
            with socket.socket(fileno=copy) as one:
                if one.family == socket.AF_INET:
                    no_delay = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
                    yield one.getsockname()[1], one.getpeername()[1], no_delay
        except OSError:  # no socket, or connected to nobody
            with suppress(OSError):
                os.close(copy)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def impatient(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    async with open_pair(tmp_path_factory.mktemp("impatient"), body_idle_s=0.2) as pair:
        yield pair


@pytest.mark.parametrize("sent", [b"", b'{"model":'], ids=["nothing", "a part"])
@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/api/chat", "/v1/rerank"])
async def test_a_body_that_stops_coming_is_given_up(impatient: Pair, path: str, sent: bytes) -> None:
    async def talk(side: Side) -> Answer:
        async with side.dial() as wire:
            headers = {"host": "x", "x-api-key": side.key, "content-length": "1000"}
            await wire.send(head(f"POST {path} HTTP/1.1", headers) + sent)
            return await wire.answer()

    assert (await impatient.same(talk)).status == 408


async def test_all_is_as_before_when_everybody_has_gone(side: Side) -> None:
    side.engine.pace = QUICK
    assert {(await side.ask(path, body)).status for path, body in HOT.items()} == {200}
    assert len(side.engine.record.requests) == len(HOT)
    await eventually(lambda: side.house.metric("forebay_gateway_running") == 0)
    await eventually(lambda: not side.house.scheduler.held, "a slot is not given back")
    assert side.engine.slots.running == 0
