"""Heads in every shape that a client may give them, cut anywhere: the same meaning on both ways in."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.gateway.conformance.pair import Pair, Side, said
from tests.gateway.conformance.wire import Answer, Wire, head, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
BODY = b'{"model":"fake-model","input":"some words"}'


def lines(side: Side, *more: bytes, path: str = "/v1/embeddings") -> bytes:
    """A request whose head has these lines besides, each as it is."""
    first = (f"POST {path} HTTP/1.1", "host: x", f"x-api-key: {side.key}", f"content-length: {len(BODY)}")
    return b"\r\n".join([*(line.encode() for line in first), *more, b"", b""]) + BODY


async def test_a_request_may_be_cut_at_every_byte(pair: Pair) -> None:
    async def talk(side: Side) -> list[Answer]:
        raw = lines(side, b"x-request-id: cut")
        async with side.dial() as wire:
            answers = [await _cut(wire, raw, at) for at in range(1, len(raw))]
            assert await wire.is_open()
        return answers

    assert {answer.status for answer in await pair.same(talk)} == {200}


async def _cut(wire: Wire, raw: bytes, at: int) -> Answer:
    await wire.send(raw[:at], raw[at:])
    return await wire.answer()


@pytest.mark.parametrize("path", [CHAT, "/v1/models"])
async def test_a_request_may_come_byte_by_byte(pair: Pair, path: str) -> None:
    async def talk(side: Side) -> Answer:
        is_hot = path == CHAT
        raw = request(path, said(stream=True) if is_hot else None, key=side.key, method="POST" if is_hot else "GET")
        async with side.dial() as wire:
            await wire.send(*(raw[at : at + 1] for at in range(len(raw))))
            answer = await wire.answer()
            assert await wire.is_open()
            return answer

    assert (await pair.same(talk)).status == 200


FINE: dict[str, list[bytes]] = {
    "odd case": [b"X-ReQuEsT-iD: mine"],
    "no blank before the value": [b"x-request-id:mine"],
    "many blanks around the value": [b"x-request-id:    mine     "],
    "a tab before the value": [b"x-request-id:\tmine"],
    "a tab after the value": [b"x-request-id: mine\t"],
    "an empty value": [b"x-empty:", b"x-request-id: mine"],
    "an odd name": [b"!#$%&'*+-.^_`|~09aZ: x", b"x-request-id: mine"],
    "a name with an underscore": [b"content_length: 3", b"x-request-id: mine"],
    "a harmless header twice": [b"accept: a", b"accept: b", b"x-request-id: mine"],
    "an id twice": [b"x-request-id: mine", b"x-request-id: yours"],
    "a hundred headers": [*(b"x-%d: %d" % (n, n) for n in range(100)), b"x-request-id: mine"],
    "a line of 15 KiB": [b"x-long: " + b"x" * (15 << 10), b"x-request-id: mine"],
    "bytes that are no ASCII": [b"x-odd: \xe4\xff\x80", b"x-request-id: mine"],
    "UTF-8": ["x-odd: größer".encode(), b"x-request-id: mine"],
    "a tab inside a value": [b"x-odd: a\tb", b"x-request-id: mine"],
    "a colon inside a value": [b"x-odd: a:b: c", b"x-request-id: mine"],
    "hop-by-hop names": [b"te: trailers", b"keep-alive: timeout=5", b"x-request-id: mine"],
    "an empty list of connections": [b"connection: ,", b"x-request-id: mine"],
    "connection named twice": [b"connection: keep-alive", b"connection: x", b"x-request-id: mine"],
    "an expectation that nobody has": [b"expect: the-unexpected", b"x-request-id: mine"],
}


@pytest.mark.parametrize("more", FINE.values(), ids=FINE)
@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank"])
async def test_a_head_that_may_be_odd_is_understood(pair: Pair, path: str, more: list[bytes]) -> None:
    answer, is_open = await pair.same(lambda side: side.served(lines(side, *more, path=path)))
    assert answer.status in (200, 400)  # what is no ranking is refused by the name of a field
    assert (answer["x-request-id"], is_open) == ("mine", True)


@pytest.mark.parametrize(
    "more",
    [[b"x-long: " + b"x" * (17 << 10)], [b"x-%d: %d" % (n, n) for n in range(300)], [b"x" * (17 << 10) + b": a"]],
    ids=["a line of 17 KiB", "three hundred headers", "a name of 17 KiB"],
)
@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/models"])
async def test_a_head_that_is_too_long_is_refused(pair: Pair, path: str, more: list[bytes]) -> None:
    answer, is_open = await pair.same(lambda side: side.served(lines(side, *more, path=path)))
    assert (answer.status, is_open) == (400, False)
    assert all(side.bodies() == [] for side in pair.sides)


async def test_an_address_that_is_too_long_is_refused(pair: Pair) -> None:
    answer, is_open = await pair.same(lambda side: side.served(lines(side, path="/v1/embeddings?" + "x" * (17 << 10))))
    assert (answer.status, is_open) == (400, False)


async def test_a_head_without_a_host_is_answered_alike(pair: Pair) -> None:
    async def talk(side: Side) -> tuple[Answer, bool]:
        raw = head(f"POST {CHAT} HTTP/1.1", {"x-api-key": side.key, "content-length": "2"}) + b"{}"
        return await side.served(raw)

    answer, _ = await pair.same(talk)
    assert answer.status == 400


async def test_what_a_key_says_in_two_headers_is_said_by_the_first(pair: Pair) -> None:
    async def talk(side: Side) -> list[int]:
        told = []
        for one, two in ((side.key, "garbage"), ("garbage", side.key)):
            raw = request(CHAT, said(), authorization=f"Bearer {one}")
            raw = raw.replace(b"\r\nauthorization", b"\r\nAuthorization", 1)
            cut = raw.index(b"\r\n\r\n")
            raw = raw[:cut] + b"\r\nauthorization: Bearer " + two.encode() + raw[cut:]
            told.append((await side.served(raw))[0].status)
        return told

    assert await pair.same(talk) == [200, 401]


async def test_every_request_gets_an_id_of_its_own(pair: Pair) -> None:
    for side in pair.sides:
        async with side.dial() as wire:
            await wire.send(request(CHAT, said(), key=side.key) * 3)
            ids = [(await wire.answer())["x-request-id"] for _ in range(3)]
        assert len(set(ids)) == 3
        assert all(re.fullmatch("req-[0-9a-f]{24}", one) for one in ids)


async def test_a_connection_that_says_nothing_or_half_a_head_may_go(pair: Pair) -> None:
    for side in pair.sides:
        for said_first in (b"", b"POST", lines(side)[:70]):
            async with side.dial() as wire:
                await wire.send(said_first)
                await asyncio.sleep(0)
                wire.half_close()
                told = await wire.rest()
                assert told == b"" or b" 400 " in told.partition(b"\r\n")[0]
        assert side.house.metric("forebay_gateway_running") == 0
