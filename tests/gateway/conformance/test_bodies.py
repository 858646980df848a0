"""Bodies of every size and framing arrive as they were sent, or are refused alike."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from tests.gateway.conformance.pair import Pair, Side, said
from tests.gateway.conformance.wire import Answer, chunked, head, request
from tests.gateway.house import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
TEXT = 'größer 📚   \u2028 \\ " \u0000 x'


def framed(side: Side, content: bytes, path: str = CHAT, **headers: str) -> bytes:
    """A head with these headers, and then these bytes as they are."""
    lines = {"host": "x", "x-api-key": side.key, "content-type": "application/json"}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    return head(f"POST {path} HTTP/1.1", lines) + content


@pytest.mark.parametrize("size", [10, 1000, 100_000, 10_000_000])
@pytest.mark.parametrize("way", ["length", "chunked"])
async def test_a_body_of_any_size_arrives_whole(pair: Pair, size: int, way: str) -> None:
    async def talk(side: Side) -> Answer:
        told = "".join(chr(97 + at % 23) for at in range(1000)) * (size // 1000) or "x" * size
        content = json.dumps(said(user=told, stream=True)).encode()
        if way == "length":
            raw = framed(side, content, content_length=str(len(content)))
        else:
            raw = framed(side, chunked(content, 50_000), transfer_encoding="chunked")
        answer, is_open = await side.served(raw)
        assert is_open
        (asked,) = side.bodies()
        assert asked["user"] == told
        return answer

    assert (await pair.same(talk)).status == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat"])
async def test_text_of_every_kind_arrives_as_it_is(pair: Pair, path: str) -> None:
    async def talk(side: Side) -> Answer:
        body = {**said(stream=False), "max_tokens": 20, "messages": [{"role": "user", "content": TEXT}]}
        content = json.dumps(body, ensure_ascii=False).encode()
        answer, _ = await side.served(framed(side, content, path, content_length=str(len(content))))
        (asked,) = side.bodies()
        assert asked["messages"][-1]["content"] == TEXT
        return answer

    assert (await pair.same(talk)).status == 200


async def test_what_passes_as_it_is_passes_byte_by_byte(pair: Pair) -> None:
    """With numbers and blanks that no other writing of the same JSON would have."""

    async def talk(side: Side) -> bytes:
        content = b'{ "model":"odd-model","messages":[{"role":"user" ,"content":"x"}],"x":1.50e+2,\t"y":"\\u00e9" }'
        reply = b'{"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}], "z" : 1.0 }'
        side.odd.answer = [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(reply), reply]
        answer, _ = await side.served(request(CHAT, content, key=side.key))
        ((_, asked),) = side.odd.asked
        await eventually(lambda: side.odd.too_much == [b""], "something came behind the body")
        return asked + b"\n" + answer.body

    told = await pair.same(talk)
    assert b"1.50e+2" in told
    assert b'"z" : 1.0' in told


CHUNKS: dict[str, dict[str, Any]] = {
    "one": {},
    "many": {"size": 7},
    "with extensions": {"size": 30, "extension": ';a=b;c="d e"'},
    "with a trailer": {"trailers": "x-sum: 1\r\n"},
}


@pytest.mark.parametrize("options", CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize("path", [CHAT, "/v1/rerank"])
async def test_chunks_are_put_together_and_the_connection_goes_on(
    pair: Pair, path: str, options: dict[str, Any]
) -> None:
    async def talk(side: Side) -> list[Answer]:
        content = chunked(json.dumps(said(user="in chunks")).encode(), **options)
        async with side.dial() as wire:
            await wire.send(framed(side, content, path, transfer_encoding="chunked"))
            answers = [await wire.answer()]
            await wire.send(request(CHAT, said(user="after them"), key=side.key))
            answers.append(await wire.answer())
            assert await wire.is_open()
        assert [body["user"] for body in side.bodies()][-1] == "after them"
        return answers

    first, second = await pair.same(talk)
    assert (first.status, second.status) == (200 if path == CHAT else 400, 200)


@pytest.mark.parametrize("way", ["length", "chunked"])
@pytest.mark.parametrize("spelled", ["100-continue", "100-Continue"])
async def test_a_client_that_expects_to_be_told_is_told(pair: Pair, way: str, spelled: str) -> None:
    async def talk(side: Side) -> list[Answer]:
        content = json.dumps(said()).encode()
        framing = {"content_length": str(len(content))} if way == "length" else {"transfer_encoding": "chunked"}
        async with side.dial() as wire:
            await wire.send(framed(side, b"", expect=spelled, **framing))
            assert await wire.first(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            await wire.send(content if way == "length" else chunked(content))
            answers = [await wire.answer()]
            await wire.send(request(CHAT, said(), key=side.key))
            answers.append(await wire.answer())
            assert await wire.is_open()
        return answers

    assert [answer.status for answer in await pair.same(talk)] == [200, 200]


async def test_a_client_that_expects_to_be_told_is_told_no(pair: Pair) -> None:
    async def talk(side: Side) -> list[Answer]:
        told = []
        async with side.dial() as wire:
            await wire.send(framed(side, b"", x_api_key="garbage", content_length="10", expect="100-continue"))
            told.append(await wire.answer())
        async with side.dial() as wire:
            await wire.send(framed(side, b"", content_length=str(17 << 20), expect="100-continue"))
            told.append(await wire.answer())
        return told

    assert [answer.status for answer in await pair.same(talk)] == [401, 413]


CODINGS = {
    "gzip": gzip.compress(json.dumps(said(user="packed")).encode(), mtime=0),
    "deflate": zlib.compress(json.dumps(said(user="packed")).encode()),
}


@pytest.mark.parametrize("way", ["length", "chunked"])
@pytest.mark.parametrize("coding", CODINGS)
async def test_packed_bodies_are_unpacked(pair: Pair, coding: str, way: str) -> None:
    async def talk(side: Side) -> tuple[Answer, bool]:
        packed = CODINGS[coding]
        if way == "length":
            raw = framed(side, packed, content_encoding=coding, content_length=str(len(packed)))
        else:
            raw = framed(side, chunked(packed, 11), content_encoding=coding, transfer_encoding="chunked")
        told = await side.served(raw)
        assert [body["user"] for body in side.bodies()] == ["packed"]
        return told

    answer, is_open = await pair.same(talk)
    assert (answer.status, is_open) == (200, True)


BADLY_CODED = {
    "no gzip": ("gzip", b"this is no gzip at all"),
    "half a gzip": ("gzip", CODINGS["gzip"][:20]),
    "too much when unpacked": ("gzip", gzip.compress(b" " * (17 << 20), mtime=0)),
    "nobody's coding": ("br", b"\x0b\x02\x80{}\x03"),
    "twice": ("gzip, gzip", gzip.compress(CODINGS["gzip"], mtime=0)),
}


@pytest.mark.parametrize(("coding", "packed"), BADLY_CODED.values(), ids=BADLY_CODED)
@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
async def test_what_cannot_be_unpacked_is_refused_alike(pair: Pair, path: str, coding: str, packed: bytes) -> None:
    async def talk(side: Side) -> Answer:
        async with side.dial() as wire:
            await wire.send(framed(side, packed, path, content_encoding=coding, content_length=str(len(packed))))
            return await wire.answer()

    answer = await pair.same(talk)
    assert answer.status in (400, 413)
    assert all(side.bodies() == [] for side in pair.sides)


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/api/chat", "/v1/rerank"])
async def test_a_body_that_is_too_large_is_refused_before_it_is_read(pair: Pair, path: str) -> None:
    async def talk(side: Side) -> Answer:
        async with side.dial() as wire:
            await wire.send(framed(side, b"{", path, content_length=str((16 << 20) + 1)))
            return await wire.answer()

    answer = await pair.same(talk)
    assert (answer.status, answer["x-forebay-reason"]) == (413, "body_too_large")


async def test_a_body_that_turns_out_too_large_is_refused(pair: Pair) -> None:
    async def talk(side: Side) -> Answer:
        async with side.dial() as wire:
            await wire.send(framed(side, chunked(b" " * ((16 << 20) + 1)), transfer_encoding="chunked"))
            return await wire.answer()

    assert (await pair.same(talk)).status == 413


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/api/chat"])
async def test_a_request_without_a_body_is_refused_as_one_that_is_no_json(pair: Pair, path: str) -> None:
    answer, is_open = await pair.same(lambda side: side.served(framed(side, b"", path)))
    assert (answer.status, is_open) == (400, True)


async def test_what_comes_as_another_type_is_read_all_the_same(pair: Pair) -> None:
    async def talk(side: Side) -> list[Answer]:
        content = json.dumps(said()).encode()
        told = []
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "", "x"):
            raw = framed(side, content, content_type=kind, content_length=str(len(content)))
            told.append((await side.served(raw))[0])
        return told

    assert {answer.status for answer in await pair.same(talk)} == {200}
