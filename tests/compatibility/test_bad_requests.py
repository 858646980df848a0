"""What is wrong around a body: methods, addresses, headers, encodings, sizes, and clients that stop in the middle."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.compatibility.accepting_engine import demand_rest, open_accepting_house
from tests.compatibility.addresses import (
    CHAT,
    MESSAGES,
    OLLAMA_CHAT,
    TAKES_FORMS,
    TAKES_JSON,
    TRANSCRIPTION,
    Address,
    Told,
    demand_no_leak,
    demand_refusal,
    demand_rows,
    told_for,
)
from tests.gateway.house import MODEL, OUTCOME, House, eventually

ALL = (*TAKES_JSON, *TAKES_FORMS)
FORM_HEAD = "content-type: multipart/form-data; boundary=b\r\n"


class Wire:
    """A connection on which a client writes what it likes."""

    def __init__(self, house: House, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._house, self.reader, self.writer = house, reader, writer

    def begin(self, address: Address, *headers: str, path: str = "") -> None:
        told = "".join(f"{header}\r\n" for header in headers)
        if address in TAKES_FORMS:
            told += FORM_HEAD
        head = f"POST {path or address.path} HTTP/1.1\r\nhost: x\r\nx-api-key: {self._house.key}\r\n{told}\r\n"
        self.writer.write(head.encode("utf-8", "surrogateescape"))

    async def answer(self) -> Told:
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            status, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await self._body(headers)
        return Told(int(status.split()[1]), headers, body)

    async def _body(self, headers: Mapping[str, str]) -> bytes:
        if "transfer-encoding" not in headers:
            return await self.reader.readexactly(int(headers.get("content-length", 0)))
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readline()
        await self.reader.readline()
        return body

    async def serves_another(self) -> bool:
        """Whether one more request is answered; if not, it was closed."""
        body = CHAT.body()
        try:
            self.begin(CHAT, f"content-length: {len(body)}")
            self.writer.write(body)
            told = await self.answer()
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        assert told.status == 200, told
        return True


@asynccontextmanager
async def wire_to(house: House) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection(*house.url.removeprefix("http://").split(":"))
    try:
        yield Wire(house, reader, writer)
    finally:
        writer.transport.abort()


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


async def test_other_methods_are_refused_with_those_that_there_are(tmp_path: Path) -> None:
    async with open_accepting_house(tmp_path) as (house, engine):
        for address in ALL:
            for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
                body = address.body() if method in ("PUT", "PATCH", "DELETE") else None
                told = await told_for(house, address, body, method=method)
                assert (told.status, told.headers.get("allow")) == (405, "POST"), f"{method} {address}: {told}"
                if method != "HEAD":
                    demand_refusal(told, address, house)
                assert told.headers["x-request-id"]
        assert engine.bodies == []
        await house.rows(0, wait_s=0.1)


ODD_PATHS = (
    "/v1/chat/completions\xff",
    "/v1/%ff%fe",
    "/v1/%00",
    "/v1/%0d%0ax-evil:%201",
    "//v1/chat/completions",
    "/v1/../v1/nothing",
    "/v1/models/\xff",
    "/v1/models/%ff",
    "/v1/models/a%0ab",
    "/v1/models/" + "x" * 5000,
    "/k/KEY/v1/nothing%0a",
    "/k/KEY/v1/\xff",
    "/k/KEY%0a/v1/chat/completions",
    "/k/KEY%2fv1/chat/completions",
    "/k/%ff/v1/chat/completions",
    "/k/\xff/v1/chat/completions",
    "/k//v1/chat/completions",
    "/k/" + "x" * 5000 + "/v1/chat/completions",
    "/k/fb-%00-%00/v1/chat/completions",
    "/k/%F0%9F%92%A7/v1/chat/completions",
    "/api/\xff",
    "/v1/messages/\xff",
    "http://elsewhere.example/v1/nothing",
    "*",
)


async def test_odd_addresses_are_refused_in_some_dialect_and_never_repeat_the_key(tmp_path: Path) -> None:
    async with open_accepting_house(tmp_path) as (house, engine):
        for path in ODD_PATHS:
            for method in ("POST", "GET"):
                async with wire_to(house) as wire:
                    line = f"{method} {path.replace('KEY', str(house.key))} HTTP/1.1\r\n"
                    wire.writer.write(line.encode("latin-1") + b"host: x\r\ncontent-length: 2\r\n\r\n{}")
                    told = await wire.answer()
                    assert 400 <= told.status < 500, f"{method} {path!r}: {told}"
                    demand_no_leak(Told(told.status, told.headers, told.body.replace(b"http://elsewhere", b"")), house)
                    assert json.loads(told.body)["error"]
                    assert told.headers["x-request-id"]
        assert engine.bodies == []
        await demand_rest(house, engine)


async def test_queries_and_keys_in_the_path_change_nothing(tmp_path: Path) -> None:
    async with open_accepting_house(tmp_path) as (house, engine):
        seen = []
        for path in (
            f"{MESSAGES.path}?beta=true",
            f"{MESSAGES.path}/?",
            f"{MESSAGES.path}?model=nothing&api_key=x&%ff=%00",
            f"{MESSAGES.path}?{'x' * 5000}",
            f"{MESSAGES.path}#fragment",
            f"/anthropic{MESSAGES.path}",
            f"/k/{house.key}{MESSAGES.path}?k=v",
            f"/k/{str(house.key).replace('-', '%2D')}{MESSAGES.path}",
            f"/k/{house.key}/anthropic{MESSAGES.path}/",
        ):
            async with house.client.post(
                f"{house.url}{path}",
                data=MESSAGES.body(),
                headers={} if path.startswith("/k/") else house.headers,
            ) as answer:
                told = Told(answer.status, answer.headers, await answer.read())
            assert told.status == 200, f"{path}: {told}"
            seen.append(told)
        await demand_rest(house, engine)
        await demand_rows(house, seen)


ODD_HEADERS = (
    "x-api-key: \udcff\udcfe",
    "x-api-key: a key with blanks",
    "authorization: Bearer \udcff",
    "authorization: Basic abc",
    "authorization: \udcff\udcff",
    "x-request-id: \udcff",
    "x-request-id: a b",
    "x-session-id: \udcff",
    "traceparent: 00-\udcff",
    "x-forebay-priority: \udcff",
    "x-forebay-deadline-ms: \udcff",
    "x-forebay-deadline-ms: ٣",
    "x-forebay-deadline-ms: 1e9",
    "content-type: \udcff",
    "content-type: application/json; charset=\udcff",
    "expect: \udcff",
    "expect: nothing",
    "accept: \udcff",
    "anthropic-version: \udcff",
    "cookie: \udcff",
    f"x-long: {'x' * 16_000}",
)


@pytest.mark.parametrize("address", [CHAT, MESSAGES, OLLAMA_CHAT, TRANSCRIPTION], ids=str)
async def test_odd_headers_are_ignored_or_refused_and_never_fail(tmp_path: Path, address: Address) -> None:
    async with open_accepting_house(tmp_path) as (house, engine):
        seen = []
        body = address.body()
        if address in TAKES_FORMS:
            body = f'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\n{MODEL}\r\n'.encode()
            body += b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--b--\r\n'
        for header in ODD_HEADERS:
            async with wire_to(house) as wire:
                kept = header if header.startswith("x-api-key") else f"x-api-key: {house.key}\r\n{header}"
                kind = FORM_HEAD if address in TAKES_FORMS and not header.startswith("content-type") else ""
                head = f"POST {address.path} HTTP/1.1\r\nhost: x\r\n{kind}{kept}\r\ncontent-length: {len(body)}\r\n\r\n"
                wire.writer.write(head.encode("utf-8", "surrogateescape") + body)
                told = await wire.answer()
                assert told.status in (200, 400, 401, 403), f"{header!r}: {told}"
                demand_no_leak(told, house)
                if told.status != 200:
                    demand_refusal(told, address, house)
                seen.append(told)
                assert await wire.serves_another()
        assert sum(told.status == 200 for told in seen) >= 10
        await demand_rest(house, engine)
        await house.rows(2 * len(seen))


NO_HEADERS = (
    b"x-long: " + b"x" * 20_000,
    b"x-long: " + b"x" * 2_000_000,
    b"no colon at all",
    b"x bad: name",
    b"x: \0",
    b": nameless",
    b"content-length: x",
    b"content-length: -1",
    b"content-length: 99999999999999999999999999",
    b"transfer-encoding: nonsense",
    b"transfer-encoding: chunked\r\ncontent-length: 5",
    b"\r\n".join(b"x-%d: y" % n for n in range(5_000)),
)


async def test_headers_that_are_no_headers_are_answered_in_shape(tmp_path: Path) -> None:
    async with open_accepting_house(tmp_path) as (house, engine):
        for line in NO_HEADERS:
            async with wire_to(house) as wire:
                head = f"POST {CHAT.path} HTTP/1.1\r\nhost: x\r\nx-api-key: {house.key}\r\n".encode()
                wire.writer.write(head + line + b"\r\n\r\n")
                told = await wire.answer()
                assert 400 <= told.status < 500, f"{line[:40]!r}: {told}"
                demand_refusal(told, CHAT, house)
        assert engine.bodies == []
        await demand_rest(house, engine)


async def test_a_content_type_that_is_wrong_is_forgiven_where_the_body_is_json(tmp_path: Path) -> None:
    async with open_accepting_house(tmp_path) as (house, engine):
        kinds = ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "nonsense", "")
        for kind in kinds:
            told = await told_for(house, CHAT, CHAT.body(), {"content-type": kind})
            assert told.status == 200, f"{kind}: {told}"
        await demand_rest(house, engine)
        await house.rows(len(kinds))


ENCODED = (
    ("gzip", gzip.compress(CHAT.body()), 200),
    ("GZIP", gzip.compress(CHAT.body()), 200),
    ("deflate", zlib.compress(CHAT.body()), 200),
    ("identity", CHAT.body(), 200),
    ("gzip", CHAT.body(), 400),
    ("gzip", gzip.compress(CHAT.body())[:-12], 400),
    ("gzip", gzip.compress(b"[]"), 400),
    ("gzip", b"", 400),
    ("nonsense", b"\x01\x02", 400),
    ("gzip, gzip", gzip.compress(gzip.compress(CHAT.body())), 400),
)


UNREADABLE = (("br", b"x"), ("zstd", b"x"), ("gzip", b"x" * 100_000), ("deflate", b"x" * 100_000))
"""At these the server's parser stops, with the headers or after them."""


async def test_what_cannot_be_decompressed_is_refused_without_a_word_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_accepting_house(tmp_path, body_idle_s=0.3) as (house, engine):
        for encoding, body in UNREADABLE:
            for pause_s in (0.0, 0.05):
                async with wire_to(house) as wire:
                    wire.begin(CHAT, f"content-encoding: {encoding}", f"content-length: {len(body)}")
                    await asyncio.sleep(pause_s)
                    wire.writer.write(body)
                    told = await wire.answer()
                    assert told.status == 400, f"{encoding}: {told}"
                    assert "encoded" in demand_refusal(told, CHAT, house)
                    assert not await wire.serves_another()
        async with wire_to(house) as wire:
            wire.begin(CHAT, "content-encoding: deflate", "content-length: 6")
            await asyncio.sleep(0.05)
            wire.writer.write(b"\x78\x9cxxxx")
            # aiohttp notices that it is cut short only at its end, and tells nobody who waits for the rest.
            assert (await wire.answer()).status == 408
        assert engine.bodies == []
        await demand_rest(house, engine)
    assert errors_in(caplog) == []


async def test_compressed_bodies_are_read_or_refused_when_they_are_none(tmp_path: Path) -> None:
    async with open_accepting_house(tmp_path) as (house, engine):
        seen = []
        for encoding, body, status in ENCODED:
            async with wire_to(house) as wire:
                wire.begin(CHAT, f"content-encoding: {encoding}", f"content-length: {len(body)}")
                wire.writer.write(body)
                told = await wire.answer()
                assert told.status == status, f"{encoding} {body[:20]!r}: {told}"
                if status != 200:
                    demand_refusal(told, CHAT, house)
                seen.append(told)
        assert len(engine.bodies) == 4
        await demand_rest(house, engine)
        await demand_rows(house, seen)


@pytest.mark.parametrize("address", [CHAT, TRANSCRIPTION], ids=str)
async def test_a_bomb_meets_the_limit_before_it_takes_memory(tmp_path: Path, address: Address) -> None:
    most = 1 << 20
    async with open_accepting_house(tmp_path, max_body_bytes=most, max_upload_bytes=most) as (house, engine):
        squeezer = zlib.compressobj(9, zlib.DEFLATED, 31)
        head = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        bomb = squeezer.compress(head if address in TAKES_FORMS else b"")
        bomb += b"".join(squeezer.compress(b" " * most) for _ in range(64)) + squeezer.flush()
        assert len(bomb) < most
        tracemalloc.start()
        try:
            async with wire_to(house) as wire:
                wire.begin(address, "content-encoding: gzip", f"content-length: {len(bomb)}")
                wire.writer.write(bomb)
                told = await wire.answer()
                _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert told.status == 413, told
        demand_refusal(told, address, house)
        assert peak < 24 << 20, f"{peak >> 20} MB"
        assert engine.bodies == []
        await demand_rest(house, engine)
        await demand_rows(house, [told])


_FILE = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'.ljust(3000)
TOO_LARGE = (
    (("content-length: 1000000000000",), b""),
    (("content-length: 3000", "expect: 100-continue"), b""),
    (("content-length: 3000",), b" " * 3000),
    (("transfer-encoding: chunked",), b"bb8\r\n" + _FILE + b"\r\n0\r\n\r\n"),
    (("transfer-encoding: chunked",), b"bb8\r\n" + _FILE + b"\r\n"),
)
"""The last one goes on; of a form, what came last is looked at when more has come."""


async def test_bodies_over_the_limit_are_refused_in_each_dialect_whether_they_say_so_or_not(tmp_path: Path) -> None:
    async with open_accepting_house(tmp_path, max_body_bytes=2000, max_upload_bytes=2000) as (house, engine):
        seen, others = [], 0
        for address in ALL:
            for headers, body in TOO_LARGE[:-1] if address in TAKES_FORMS else TOO_LARGE:
                async with wire_to(house) as wire:
                    wire.begin(address, *headers)
                    wire.writer.write(body)
                    told = await wire.answer()
                    assert told.status == 413, f"{address} {headers}: {told}"
                    demand_refusal(told, address, house)
                    seen.append((address, told))
                    if len(body) == 3000:
                        others += await wire.serves_another()
        await demand_rest(house, engine)
        await house.rows(others + sum(address.has_row for address, _ in seen))


async def test_a_picture_of_twenty_megabytes_passes_and_its_memory_is_given_back(tmp_path: Path) -> None:
    picture = "A" * (20 << 20)
    bodies = (
        (CHAT, [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}]),
        (MESSAGES, [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": picture}}]),
    )
    async with open_accepting_house(tmp_path) as (house, engine):
        for address, content in bodies:
            body = address.body(messages=[{"role": "user", "content": content}])
            told = await told_for(house, address, body)
            assert told.status == 200, told
            (passed,) = engine.bodies
            assert picture in passed["messages"][0]["content"][0]["image_url"]["url"]
            engine.bodies.clear()
            await demand_rest(house, engine)
        await house.rows(2)


async def test_a_client_that_falls_silent_in_the_middle_is_told_so_in_its_dialect(tmp_path: Path) -> None:
    async with open_accepting_house(tmp_path, body_idle_s=0.3) as (house, engine):

        async def fall_silent(address: Address, *headers: str, body: bytes) -> Told:
            async with wire_to(house) as wire:
                wire.begin(address, *headers)
                wire.writer.write(body)
                told = await wire.answer()
                assert told.status == 408, f"{address} {headers}: {told}"
                demand_refusal(told, address, house)
                return told

        silences = [
            *(fall_silent(address, "content-length: 100", body=b"") for address in ALL),
            *(fall_silent(address, "content-length: 100", body=b"--b\r\n") for address in ALL),
            *(fall_silent(address, "transfer-encoding: chunked", body=b"5\r\n--b\r\n\r\n") for address in ALL),
            *(fall_silent(address, "transfer-encoding: chunked", body=b"5\r\n--") for address in ALL),
        ]
        seen = await asyncio.gather(*silences)
        assert engine.bodies == []
        await demand_rest(house, engine)
        await demand_rows(house, [told for address, told in zip(ALL * 4, seen, strict=True) if address.has_row])


async def test_a_client_that_goes_in_the_middle_leaves_one_cancelled_row_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_accepting_house(tmp_path) as (house, engine):
        for address in ALL:
            for headers, body in (
                ("content-length: 100", b""),
                ("content-length: 100", b"--b\r\ncontent-dis"),
                ("transfer-encoding: chunked", b"5\r\n--b\r\n\r\n"),
            ):
                for resets in (False, True):
                    async with wire_to(house) as wire:
                        wire.begin(address, headers)
                        wire.writer.write(body)
                        await wire.writer.drain()
                        if address.has_row:
                            await eventually(lambda: house.metric("forebay_gateway_running"))
                        if not resets:
                            sock = wire.writer.get_extra_info("socket")
                            sock.shutdown(socket.SHUT_WR)
                            await eventually(lambda: not house.metric("forebay_gateway_running"))
        assert engine.bodies == []
        await demand_rest(house, engine)
        rows = await house.rows(6 * sum(address.has_row for address in ALL))
        assert {OUTCOME(row.outcome) for row in rows} == {"OUTCOME_CANCELLED"}
    assert errors_in(caplog) == []


NO_CHUNKS = (b"x\r\n", b"5\r\n123456\r\n", b"-1\r\n", b"ffffffffffffffffffff\r\n", b"5;\0\r\n12345\r\n")


async def test_chunks_that_are_none_are_refused_and_end_the_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_accepting_house(tmp_path) as (house, engine):
        for chunks in NO_CHUNKS:
            async with wire_to(house) as wire:
                wire.begin(CHAT, "transfer-encoding: chunked")
                wire.writer.write(chunks)
                told = await wire.answer()
                assert told.status == 400, f"{chunks!r}: {told}"
                demand_refusal(told, CHAT, house)
                assert await asyncio.wait_for(wire.reader.read(), 30) == b""
        assert engine.bodies == []
        await demand_rest(house, engine)
    assert errors_in(caplog) == []


async def test_after_a_refusal_the_connection_serves_the_next_request(tmp_path: Path) -> None:
    async with open_accepting_house(tmp_path) as (house, engine):
        async with wire_to(house) as wire:
            for address in TAKES_JSON:
                for body in (b"{", address.body(model="nothing"), b""):
                    wire.begin(address, f"content-length: {len(body)}")
                    wire.writer.write(body)
                    demand_refusal(await wire.answer(), address, house)
            body = CHAT.body()
            wire.begin(CHAT, f"content-length: {len(body)}")
            wire.writer.write(body)
            told = await wire.answer()
            assert told.status == 200
            assert re.match(rb'\{"model"', told.body)
        await demand_rest(house, engine)
