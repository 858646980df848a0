"""No byte of one message becomes part of another: what is framed in doubt is refused, and nothing behind it is read.

Every case hides a second request, with a valid key, in what comes behind the first. It must never be served."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.gateway.conformance.ambiguities import (
    BAD_CHUNKS,
    BAD_LINES,
    BODY,
    CHAT,
    CHUNKS,
    CL,
    CODINGS,
    FIRST_LINES,
    FRAMED_TWICE,
    LENGTHS,
    LINE_ENDS,
    NO_HTTP,
    SURPLUS,
    TE,
)
from tests.gateway.conformance.pair import ODD, Pair, Side, open_pair, said
from tests.gateway.conformance.wire import Answer, chunked, request

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateways(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    async with open_pair(tmp_path_factory.mktemp("pair")) as pair:
        yield pair


@pytest.fixture
def pair(gateways: Pair) -> Pair:
    gateways.forget()
    return gateways


def hidden(side: Side) -> bytes:
    return request(CHAT.decode(), said(user="hidden"), key=side.key)


def plain(side: Side, *lines: bytes, body: bytes = BODY, first: bytes = b"POST %s HTTP/1.1" % CHAT) -> bytes:
    """A request with these lines in its head besides host and key, and then this body as it is."""
    return b"\r\n".join([first, b"host: x", b"x-api-key: " + side.key.encode(), *lines, b"", b""]) + body


async def end(side: Side, raw: bytes) -> list[Answer]:
    """The one answer to these bytes, or none, and then the end."""
    async with side.dial() as wire:
        await wire.send(raw)
        answer = await wire.answer_or_end()
        if answer is None:
            return []
        if not answer.closes:
            wire.half_close()
        assert await wire.rest() == b"", "something behind the answer"
    return [answer]


async def is_refused(pair: Pair, raw: dict[bool, bytes]) -> list[Answer]:
    async def talk(side: Side) -> list[Answer]:
        return await end(side, raw[side.is_hot])

    answers = await pair.same(talk)
    for side in pair.sides:
        assert side.bodies() == []
        assert side.odd.asked == []
    return answers


@pytest.mark.parametrize(("lines", "body"), FRAMED_TWICE.values(), ids=FRAMED_TWICE)
@pytest.mark.parametrize("path", [CHAT, b"/v1/rerank"], ids=["hot", "other"])
async def test_what_is_framed_twice_is_refused(pair: Pair, lines: list[bytes], body: bytes, path: bytes) -> None:
    first = b"POST %s HTTP/1.1" % path
    raw = {side.is_hot: plain(side, *lines, body=body, first=first) + hidden(side) for side in pair.sides}
    (answer,) = await is_refused(pair, raw)
    assert (answer.status, answer.closes) == (400, True)


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
async def test_a_length_that_is_no_plain_number_is_refused(pair: Pair, length: bytes) -> None:
    raw = {side.is_hot: plain(side, b"content-length: " + length) + hidden(side) for side in pair.sides}
    (answer,) = await is_refused(pair, raw)
    assert (answer.status, answer.closes) == (400, True)


@pytest.mark.parametrize("coding", CODINGS.values(), ids=CODINGS)
@pytest.mark.parametrize("with_length", [False, True], ids=["alone", "with a length"])
async def test_a_coding_that_is_not_plainly_chunked_is_refused(pair: Pair, coding: bytes, with_length: bool) -> None:
    lines = [CL, coding] if with_length else [coding]
    raw = {side.is_hot: plain(side, *lines, body=CHUNKS) + hidden(side) for side in pair.sides}
    (answer,) = await is_refused(pair, raw)
    assert (answer.status, answer.closes) == (400, True)


@pytest.mark.parametrize("lines", BAD_LINES.values(), ids=BAD_LINES)
@pytest.mark.parametrize("path", [CHAT, b"/v1/rerank"], ids=["hot", "other"])
async def test_a_line_that_is_no_header_is_refused(pair: Pair, lines: list[bytes], path: bytes) -> None:
    first = b"POST %s HTTP/1.1" % path
    raw = {side.is_hot: plain(side, CL, *lines, first=first) + hidden(side) for side in pair.sides}
    (answer,) = await is_refused(pair, raw)
    assert (answer.status, answer.closes) == (400, True)


@pytest.mark.parametrize("first", FIRST_LINES.values(), ids=FIRST_LINES)
async def test_a_first_line_that_is_none_is_refused(pair: Pair, first: bytes) -> None:
    raw = {side.is_hot: plain(side, CL, first=first) + hidden(side) for side in pair.sides}
    (answer,) = await is_refused(pair, raw)
    assert (answer.status, answer.closes) == (400, True)


@pytest.mark.parametrize("changes", LINE_ENDS.values(), ids=LINE_ENDS)
@pytest.mark.parametrize("path", [CHAT, b"/v1/rerank"], ids=["hot", "other"])
async def test_lines_end_in_one_way(pair: Pair, changes: list[tuple[bytes, bytes]], path: bytes) -> None:
    raw = {}
    for side in pair.sides:
        told = plain(side, CL, body=b"", first=b"POST %s HTTP/1.1" % path)
        for was, instead in changes:
            told = told.replace(was, instead)
        raw[side.is_hot] = told + BODY + hidden(side)
    (answer,) = await is_refused(pair, raw)
    assert (answer.status, answer.closes) == (400, True)


@pytest.mark.parametrize("body", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
async def test_chunks_that_are_none_are_refused(pair: Pair, body: bytes) -> None:
    raw = {side.is_hot: plain(side, TE, body=body) + hidden(side) for side in pair.sides}
    (answer,) = await is_refused(pair, raw)
    assert (answer.status, answer.closes) == (400, True)


async def test_a_chunk_that_never_ends_has_no_end(pair: Pair) -> None:
    async def talk(side: Side) -> list[Any]:
        body = b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n"
        async with side.dial() as wire:
            await wire.send(plain(side, TE, body=body) + hidden(side))
            wire.half_close()
            assert await wire.rest() == b""
        return side.bodies()

    assert await pair.same(talk) == []


@pytest.mark.parametrize("first", [b"POST  %s HTTP/1.1", b"POST %s  HTTP/1.1", b"POST    %s HTTP/1.1"])
async def test_blanks_between_the_words_of_the_first_line_are_read_as_one_or_refused(pair: Pair, first: bytes) -> None:
    async def talk(side: Side) -> tuple[int, bool]:
        answer, is_open = await side.served(plain(side, CL, first=first % CHAT))
        return answer.status, is_open

    assert await pair.same(talk) in ((200, True), (400, False))


@pytest.mark.parametrize(
    "trailer",
    [b"content-length: 5", b"transfer-encoding: chunked", b"host: y", b"x-api-key: other", b"content-encoding: br"],
)
async def test_a_trailer_changes_nothing(pair: Pair, trailer: bytes) -> None:
    """It is left out, or held against the request; what follows begins where the chunks end."""

    async def talk(side: Side) -> list[int]:
        told = []
        body = chunked(BODY, trailers=trailer.decode() + "\r\n")
        async with side.dial() as wire:
            await wire.send(plain(side, TE, body=body) + request(CHAT.decode(), said(user="next"), key=side.key))
            told.append((await wire.answer()).status)
            if told == [200]:
                told.append((await wire.answer()).status)
            wire.half_close()
            assert await wire.rest() == b""
        return told

    told = await pair.same(talk)
    assert told in ([200, 200], [400])
    for side in pair.sides:
        assert [body["user"] for body in side.bodies()] == ["framed", "next"][: 2 if told == [200, 200] else 0]


async def test_a_request_that_lies_in_a_body_is_a_body(pair: Pair) -> None:
    """Of every framing: with a length, in chunks, behind the end of an answer that was refused."""

    async def talk(side: Side) -> list[int]:
        inside = hidden(side).decode()
        content = json.dumps(said(user=inside)).encode()
        whole = b'"' + hidden(side).replace(b'"', b"'").replace(b"\r\n", b"  ") + b'"'
        statuses = []
        async with side.dial() as wire:
            for raw in (
                plain(side, b"content-length: %d" % len(content), body=content),
                plain(side, TE, body=chunked(content, 64)),
                plain(side, b"content-length: %d" % len(hidden(side)), body=hidden(side)),
                plain(side, TE, body=chunked(hidden(side), 3)),
                plain(side, b"content-length: %d" % len(whole), body=whole),
                request("/v1/chat/completions", hidden(side), key="garbage"),
                request("/nowhere", hidden(side), key=side.key),
                request("/v1/models", hidden(side), key=side.key),
            ):
                await wire.send(raw)
                statuses.append((await wire.answer()).status)
            assert await wire.is_open()
        assert [body["user"] for body in side.bodies()] == [inside, inside]
        return statuses

    assert await pair.same(talk) == [200, 200, 400, 400, 400, 401, 404, 405]


async def test_bytes_beyond_the_length_begin_the_next_request(pair: Pair) -> None:
    async def talk(side: Side) -> list[Answer]:
        raw = plain(side, CL, body=BODY + b"GARBAGE\r\n\r\n") + hidden(side)
        answers = []
        async with side.dial() as wire:
            await wire.send(raw[: raw.index(b"GARBAGE")])
            answers.append(await wire.answer())
            await wire.send(raw[raw.index(b"GARBAGE") :])
            answers.append(await wire.answer())
            assert await wire.rest() == b""
        assert [body["user"] for body in side.bodies()] == ["framed"]
        return answers

    assert [answer.status for answer in await pair.same(talk)] == [200, 400]


async def test_garbage_that_comes_with_a_request_is_no_part_of_it(pair: Pair) -> None:
    """Whether the request is served depends on how much was read at once; what is behind the garbage never is."""
    for side in pair.sides:
        async with side.dial() as wire:
            await wire.send(plain(side, CL, body=BODY + b"GARBAGE\r\n\r\n") + hidden(side))
            statuses = [(await wire.answer()).status]
            if statuses == [200]:
                statuses.append((await wire.answer()).status)
            assert await wire.rest() == b""
        assert statuses in ([200, 400], [400])
        assert [body["user"] for body in side.bodies()] in (["framed"], [])


@pytest.mark.parametrize("raw", NO_HTTP.values(), ids=NO_HTTP)
async def test_what_is_no_http_1_is_refused(pair: Pair, raw: bytes) -> None:
    (answer,) = await is_refused(pair, {side.is_hot: raw + hidden(side) for side in pair.sides})
    assert (answer.status, answer.closes) == (400, True)


@pytest.mark.parametrize("surplus", SURPLUS.values(), ids=SURPLUS)
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_what_an_engine_says_unasked_is_nobodys(pair: Pair, framing: str, surplus: bytes) -> None:
    async def talk(side: Side) -> list[Answer]:
        told = b'{"choices":[{"index":0,"message":{"content":"yours"},"finish_reason":"stop"}]}'
        framed = {
            "length": b"content-length: %d\r\n\r\n%b" % (len(told), told),
            "chunked": TE + b"\r\n\r\n" + chunked(told),
        }
        side.odd.answer, side.odd.keeps_open = [b"HTTP/1.1 200 OK\r\n" + framed[framing] + surplus], True
        answers = [await side.ask(CHAT.decode(), said(model=ODD, user=str(number))) for number in range(3)]
        assert [json.loads(body)["user"] for _, body in side.odd.asked] == ["0", "1", "2"]
        assert all(b"yours" in answer.body and b"not" not in answer.body for answer in answers)
        return answers

    assert [answer.status for answer in await pair.same(talk)] == [200, 200, 200]


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/messages", b"/api/chat"])
async def test_a_refusal_of_what_is_malformed_repeats_nothing_of_it(pair: Pair, path: bytes) -> None:
    first = b"POST %s HTTP/1.1" % path
    raw = {side.is_hot: plain(side, CL, CL, b"x-secret: do-not-tell", first=first) for side in pair.sides}
    (answer,) = await is_refused(pair, raw)
    assert answer.status == 400
    assert answer.json()
    for side in pair.sides:
        assert re.search(side.key.encode() + b"|do-not-tell", answer.body) is None


@pytest.mark.parametrize("behind", ["at once", "later"])
async def test_a_body_that_is_refused_unread_is_not_read_as_requests(pair: Pair, behind: str) -> None:
    """The rest of such a body is passed over, to its last byte and no further."""

    async def talk(side: Side) -> list[int]:
        inside = hidden(side) * 2000
        refused = request(CHAT.decode(), inside, key="garbage")
        cut = refused.index(b"\r\n\r\n") + 4
        after = request(CHAT.decode(), said(user="next"), key=side.key)
        async with side.dial() as wire:
            await wire.send(refused[:cut])
            statuses = [(await wire.answer()).status]
            if behind == "at once":
                await wire.send(refused[cut:] + after)
            else:
                await wire.send(refused[cut : cut + 7], refused[cut + 7 :], after)
            statuses.append((await wire.answer()).status)
            assert await wire.is_open()
        assert [body["user"] for body in side.bodies()] == ["next"]
        return statuses

    assert await pair.same(talk) == [401, 200]


async def test_a_head_that_was_said_before_is_looked_at_again(pair: Pair) -> None:
    """Its key may have been revoked since."""

    async def talk(side: Side) -> int:
        key = side.house.admin.add_key()
        async with side.dial() as wire:
            raw = request(CHAT.decode(), said(user="x"), key=key)
            statuses = [401]
            while statuses[-1] == 401:  # until the gateway knows the key
                await wire.send(raw)
                statuses.append((await wire.answer()).status)
            side.house.admin.revoke(key)
            while statuses[-1] == 200:
                await wire.send(raw)
                statuses.append((await wire.answer()).status)
        return statuses[-1]

    assert await pair.same(talk) == 401
