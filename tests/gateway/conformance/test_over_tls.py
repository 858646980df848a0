"""The same over TLS, where a connection that is handed on keeps its encryption."""

from __future__ import annotations

import itertools
import json
import ssl
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fakes.engine_orders import Pace
from tests.forebay.test_tls import write_pair
from tests.gateway.conformance.pair import HOT, ODD, STREAMED, Pair, Side, open_pair, said
from tests.gateway.conformance.wire import Answer, request
from tests.gateway.house import OUTCOME, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateways(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    place = tmp_path_factory.mktemp("tls")
    cert, key = place / "cert.pem", place / "key.pem"
    write_pair(cert, key, "localhost")
    async with open_pair(place, tls_cert=cert, tls_key=key) as pair:
        anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        for side in pair.sides:
            side.tls = anybody
        yield pair


@pytest.mark.parametrize("order", list(itertools.permutations(("plain", "stream", "list"))), ids=" then ".join)
@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
async def test_requests_follow_each_other(pair: Pair, order: tuple[str, ...], at_once: bool) -> None:
    async def talk(side: Side) -> list[Answer]:
        raws = {
            "plain": request(CHAT, said(), key=side.key),
            "stream": request("/v1/messages", STREAMED["/v1/messages"], key=side.key),
            "list": request("/v1/models", key=side.key, method="GET"),
        }
        async with side.dial() as wire:
            if at_once:
                await wire.send(b"".join(raws[name] for name in order))
            answers = []
            for name in order:
                if not at_once:
                    await wire.send(raws[name][:30], raws[name][30:])
                answers.append(await wire.answer())
            assert await wire.is_open()
        return answers

    assert [answer.status for answer in await pair.same(talk)] == [200, 200, 200]


async def test_much_arrives_whole_in_both_directions(pair: Pair) -> None:
    async def talk(side: Side) -> int:
        text = "abcdefg" * 400_000
        answer = await side.ask(CHAT, said(user=text))
        assert answer.status == 200
        assert side.bodies()[0]["user"] == text
        side.odd.floods = 100
        answer = await side.ask(CHAT, said(model=ODD, stream=True))
        return answer.body.count(b"x" * 32_000)

    assert await pair.same(talk) == 100


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_an_engine_stops_when_its_client_goes(pair: Pair, how: str) -> None:
    async def talk(side: Side) -> tuple[str, int]:
        side.engine.pace = Pace(tokens_per_s=20, ttft_s=0.0, answer_tokens=2000)
        async with side.dial() as wire:
            await wire.send(request(CHAT, said(stream=True), key=side.key, x_request_id=how))
            assert await wire.first(15) == b"HTTP/1.1 200 OK"
            wire.close() if how == "close" else wire.reset()
            await eventually(lambda: side.engine.slots.running == 0, "the engine goes on")
        return OUTCOME((await side.row(how)).outcome), len(side.bodies())

    assert await pair.same(talk) == ("OUTCOME_CANCELLED", 1)


async def test_a_slow_reader_slows_the_engine(pair: Pair) -> None:
    async def talk(side: Side) -> str:
        odd = side.odd
        odd.floods = 1000
        async with side.dial(takes_bytes=1 << 16) as wire:
            await wire.send(request(CHAT, said(model=ODD, stream=True), key=side.key, x_request_id="unread"))
            await eventually(lambda: time.monotonic() - odd.stuck_since > 0.3 or odd.flooded == odd.floods)
            assert odd.flooded < odd.floods, "the engine goes on although nobody reads"
            wire.reset()
            row = await side.row("unread")
        return OUTCOME(row.outcome)

    assert await pair.same(talk) == "OUTCOME_CANCELLED"


async def test_what_is_malformed_is_refused(pair: Pair) -> None:
    async def talk(side: Side) -> tuple[Answer, bool]:
        content = json.dumps(HOT[CHAT]).encode()
        raw = request(CHAT, content, key=side.key, transfer_encoding="chunked")
        return await side.served(raw)

    answer, is_open = await pair.same(talk)
    assert (answer.status, is_open) == (400, False)
