"""Bodies of requests that wait: in memory as far as it is allowed, then on the disk, then refused; the same words when their
turn comes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from forebay.errors import Refusal
from forebay.wire.v1 import types_pb2
from forebay_gateway.held_body import BodyBudget, HeldBody
from forebay_gateway.refused import Refused
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.gateway.house import House, ask, eventually, open_house

QUICK = Pace(tokens_per_s=1000, answer_tokens=4)
LONG_TEXT = "a long text " * 20_000


class Request:
    """What can be put away."""

    def __init__(self, words: bytes, *, can_rest: bool = True) -> None:
        self.words = words
        self.can_rest = can_rest

    def put_away(self) -> bytes | None:
        words, self.words = self.words, b""
        return words

    def bring_back(self, kept: bytes) -> None:
        self.words = kept


async def filled(budget: BodyBudget, *pieces: bytes) -> HeldBody:
    held = budget.hold()
    try:
        for piece in pieces:
            await held.add(piece)
    except Refused:
        held.release()
        raise
    return held


async def test_what_memory_has_no_room_for_lies_on_the_disk_without_a_name(tmp_path: Path) -> None:
    budget = BodyBudget(5, 100, tmp_path)
    held = await filled(budget, b"abc", b"defg", b"h")
    assert (budget.held_bytes, budget.spooled_bytes, held.is_spooled) == (0, 8, True)
    assert list(tmp_path.iterdir()) == []
    assert await held.whole() == b"abcdefgh"
    held.release()
    held.release()
    assert (budget.held_bytes, budget.spooled_bytes) == (0, 0)
    small = await filled(budget, b"abc")
    assert (budget.held_bytes, await small.whole()) == (3, b"abc")


async def test_beyond_both_it_is_refused(tmp_path: Path) -> None:
    budget = BodyBudget(5, 10, tmp_path)
    held = await filled(budget, b"abcdefgh")
    with pytest.raises(Refused) as refused:
        await filled(budget, b"abcdefgh")
    assert refused.value.word is Refusal.QUEUE_FULL
    held.release()
    assert budget.spooled_bytes == 0


async def test_a_disk_that_takes_nothing_refuses_too(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        await filled(BodyBudget(5, 100, tmp_path / "missing"), b"abcdefgh")
    assert list(tmp_path.iterdir()) == []


async def test_a_request_at_rest_has_nothing_in_memory_and_is_the_same_afterwards(tmp_path: Path) -> None:
    budget = BodyBudget(5, 100, tmp_path)
    held = await filled(budget, b"as it came")
    await held.whole()
    request = Request(b"as it was understood")
    async with held.at_rest(request):
        await eventually(lambda: budget.spooled_bytes == len(b"as it was understood"))
        assert (request.words, budget.held_bytes) == (b"", 0)
    assert request.words == b"as it was understood"
    assert (budget.held_bytes, budget.spooled_bytes) == (20, 0), "who has a slot is in memory, whatever that takes"
    held.release()
    assert budget.held_bytes == 0


async def wait_in_vain(held: HeldBody, request: Request) -> None:
    async with held.at_rest(request):
        await eventually(lambda: request.words == b"")
        raise Refused(Refusal.QUEUE_FULL, "Another model may have room.")


async def test_it_is_the_same_also_when_its_wait_ends_badly(tmp_path: Path) -> None:
    for budget in (BodyBudget(5, 100, tmp_path), BodyBudget(1 << 20)):
        held = await filled(budget, b"x" * 70_000 if budget.has_room(70_000) else b"as it came")
        request = Request(await held.whole())
        before = request.words
        with pytest.raises(Refused):
            await wait_in_vain(held, request)
        assert request.words == before
        held.release()


async def test_who_gets_a_slot_at_once_is_not_put_away(tmp_path: Path) -> None:
    budget = BodyBudget(5, 100, tmp_path)
    held = await filled(budget, b"as it came")
    request = Request(await held.whole())
    async with held.at_rest(request):
        pass
    assert (request.words, budget.held_bytes, budget.spooled_bytes) == (b"as it came", 10, 0)
    held.release()


async def test_what_cannot_rest_stays_in_memory_or_is_refused(tmp_path: Path) -> None:
    budget = BodyBudget(5, 100, tmp_path)
    held = await filled(budget, b"as it came")
    with pytest.raises(Refused):
        async with held.at_rest(Request(await held.whole(), can_rest=False)):
            raise AssertionError("it waits")
    held.release()
    assert (budget.held_bytes, budget.spooled_bytes) == (0, 0)


async def test_few_are_read_from_the_disk_at_once(tmp_path: Path) -> None:
    budget = BodyBudget(0, 1000, tmp_path)
    bodies = [await filled(budget, b"words") for _ in range(10)]
    reading = [asyncio.create_task(held.whole()) for held in bodies]
    await eventually(lambda: sum(task.done() for task in reading) == 4)
    for held in bodies:
        held.release()
        await asyncio.sleep(0)
    assert await asyncio.gather(*reading, return_exceptions=True)


PATHS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {},
    "/v1/messages": {"max_tokens": 9},
    "/v1/completions": {"prompt": LONG_TEXT, "messages": None},
    "/v1/embeddings": {"input": [LONG_TEXT], "messages": None},
    "/api/chat": {},
    "/v1/responses": {"input": LONG_TEXT, "messages": None, "store": False},
}


def long_ask(path: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": LONG_TEXT}]
    body = {**ask(messages=messages), "stream": False, **PATHS[path], **fields}
    return {name: value for name, value in body.items() if value is not None}


async def asked_of(house: House, path: str, body: dict[str, Any]) -> int:
    async with house.client.post(f"{house.url}{path}", json=body, headers=house.headers) as answer:
        await answer.read()
        return int(answer.status)


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
@pytest.mark.parametrize("flavour", [Flavour.VLLM, Flavour.OLLAMA])
@pytest.mark.parametrize("path", PATHS)
async def test_in_every_dialect_an_engine_hears_the_same_words(
    tmp_path: Path, path: str, flavour: Flavour, streamed: bool
) -> None:
    body = long_ask(path, stream=streamed)
    if path == "/v1/embeddings":
        del body["stream"]
    engine = FakeEngine(flavour=flavour, pace=QUICK, context_tokens=100_000)
    spool = tmp_path / "spool"
    spool.mkdir()
    async with open_house(tmp_path, engine, held_bodies_bytes=100_000, spool_dir=spool) as house:
        if flavour is Flavour.OLLAMA:
            await house.put("b1", engine.url, kind=types_pb2.ENGINE_KIND_OLLAMA)
        assert await asked_of(house, path, body) == 200
        house.scheduler.slots["b1"] = 0
        asking = asyncio.create_task(asked_of(house, path, body))
        await eventually(lambda: house.metric("forebay_gateway_spooled_body_bytes") > len(LONG_TEXT))
        await eventually(lambda: house.scheduler.queue)
        assert house.metric("forebay_gateway_held_body_bytes") == 0
        assert list(spool.iterdir()) == []
        house.scheduler.slots["b1"] = 1
        assert await asyncio.wait_for(asking, 10) == 200
        first, second = engine.record.requests
        assert first.body == second.body
        await eventually(lambda: house.metric("forebay_gateway_spooled_body_bytes") == 0)
        assert house.metric("forebay_gateway_held_body_bytes") == 0


async def test_a_long_request_that_waits_in_memory_hears_the_same_too(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK, context_tokens=100_000)
    async with open_house(tmp_path, engine) as house:
        for path in ("/v1/chat/completions", "/v1/messages"):
            assert await asked_of(house, path, long_ask(path)) == 200
            house.scheduler.slots["b1"] = 0
            asking = asyncio.create_task(asked_of(house, path, long_ask(path)))
            await eventually(lambda: house.scheduler.queue)
            await asyncio.sleep(0.2)
            house.scheduler.slots["b1"] = 1
            assert await asyncio.wait_for(asking, 10) == 200
            assert engine.record.requests[-1].body == engine.record.requests[-2].body


async def test_a_spooled_request_fails_over(tmp_path: Path) -> None:
    broken, other = (FakeEngine(pace=QUICK, context_tokens=100_000) for _ in range(2))
    broken.faults.add(Fault(FaultKind.STATUS, status=500))
    async with open_house(tmp_path, broken, other, held_bodies_bytes=100_000) as house:
        assert await asked_of(house, "/v1/messages", long_ask("/v1/messages")) == 200
        assert broken.record.requests[0].body == other.record.requests[0].body


async def test_clients_that_go_while_they_wait_leave_nothing_behind(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(), held_bodies_bytes=100_000, spool_dir=tmp_path) as house:
        house.scheduler.slots["b1"] = 0
        before = set(tmp_path.iterdir())
        asking = [
            asyncio.create_task(asked_of(house, "/v1/chat/completions", long_ask("/v1/chat/completions")))
            for _ in range(8)
        ]
        await eventually(lambda: len(house.scheduler.queue) == 8)
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        await eventually(lambda: not house.scheduler.queue)
        await eventually(lambda: house.metric("forebay_gateway_spooled_body_bytes") == 0)
        assert house.metric("forebay_gateway_held_body_bytes") == 0
        assert set(tmp_path.iterdir()) == before


async def test_a_body_that_is_not_json_is_told_so_also_from_the_disk(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(), held_bodies_bytes=10) as house:
        async with house.post(data=b"{" * 1000) as answer:
            assert answer.status == 400
            assert orjson.loads(await answer.read())["error"]["code"] == "invalid_json"
        assert house.metric("forebay_gateway_spooled_body_bytes") == 0
