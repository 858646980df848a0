"""Bodies that unpack to very much more than was sent: refused, and what nobody wants of them is not unpacked."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from pathlib import Path

import pytest

from forebay_gateway.http_in.connection import LINGER_S
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_orders import Pace
from tests.gateway.house import House, ask, open_house

QUICK = Pace(tokens_per_s=2000, answer_tokens=4)


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """64 MiB."""
    return gzip.compress(bytes(64 << 20), 1)


async def send(house: House, body: bytes, key: str) -> tuple[bytes, bytes]:
    """The head of the answer, and all that comes after it until the gateway ends the connection, which it does by itself."""
    reader, writer = await asyncio.open_connection(*house.url.removeprefix("http://").split(":"))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-encoding: gzip\r\n"
    writer.write(f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    rest = await asyncio.wait_for(reader.read(), LINGER_S / 2)
    writer.close()
    return answer, rest


@pytest.mark.parametrize("is_key_right", [True, False], ids=["from somebody", "from anybody"])
async def test_the_rest_of_a_packed_body_that_is_refused_is_not_unpacked(
    tmp_path: Path, bomb: bytes, is_key_right: bool
) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK), max_body_bytes=1 << 20) as house:
        before = time.process_time()
        answer, rest = await send(house, bomb, str(house.key) if is_key_right else "wrong")
        used_s = time.process_time() - before
        assert answer.startswith(b"HTTP/1.1 413" if is_key_right else b"HTTP/1.1 401")
        assert b"connection: close" in answer.lower()
        assert b'"error"' in rest
        before = time.process_time()
        gzip.decompress(bomb)
        assert used_s < (time.process_time() - before) / 2, "it was unpacked"


async def test_a_packed_body_of_a_fair_size_is_read_and_the_connection_stays(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        for _ in range(2):
            headers = {**house.headers, "content-encoding": "gzip", "content-type": "application/json"}
            body = gzip.compress(json.dumps(ask()).encode())
            async with house.client.post(f"{house.url}/v1/chat/completions", data=body, headers=headers) as response:
                assert response.status == 200
                assert response.headers.get("connection") != "close"
                await response.read()
