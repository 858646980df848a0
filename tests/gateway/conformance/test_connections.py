"""Many requests on one connection: in every order, behind each other and all at once, hot ones and others, and its end."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import pytest

from tests.gateway.conformance.pair import HOT, STREAMED, Pair, Side, said
from tests.gateway.conformance.wire import Answer, head, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Step:
    """One request on a connection that stays open."""

    method: str
    path: str
    body: Any
    status: int

    def raw(self, side: Side, name: str, **headers: str) -> bytes:
        return request(self.path, self.body, key=side.key, method=self.method, x_request_id=name, **headers)


STEPS = {
    "plain": Step("POST", CHAT, said(), 200),
    "stream": Step("POST", "/v1/messages", STREAMED["/v1/messages"], 200),
    "refused": Step("POST", "/api/chat", {"model": "nothing", "messages": []}, 404),
    "list": Step("GET", "/v1/models", None, 200),
    "no page": Step("GET", CHAT, None, 405),
}


async def told(side: Side, names: tuple[str, ...], *, at_once: bool) -> list[Answer]:
    """The answers on one connection, each to the request that it is for."""
    raws = [STEPS[name].raw(side, f"{number}-{name.replace(' ', '-')}") for number, name in enumerate(names)]
    async with side.dial() as wire:
        if at_once:
            await wire.send(b"".join(raws))
        answers = []
        for raw, name in zip(raws, names, strict=True):
            if not at_once:
                await wire.send(raw)
            answers.append(await wire.answer(STEPS[name].method))
        assert await wire.is_open()
    for number, (answer, name) in enumerate(zip(answers, names, strict=True)):
        assert answer.status == STEPS[name].status
        assert answer["x-request-id"].startswith(f"{number}-"), "an answer to another request"
    return answers


@pytest.mark.parametrize("names", list(itertools.permutations(STEPS, 3)), ids=" then ".join)
async def test_requests_follow_each_other_on_one_connection(pair: Pair, names: tuple[str, ...]) -> None:
    await pair.same(lambda side: told(side, names, at_once=False))


PIPELINES = [
    *itertools.product(("plain", "list"), repeat=2),
    ("stream", "plain"),
    ("plain", "stream", "plain"),
    ("list", "stream", "list"),
    ("refused", "plain", "refused"),
    ("plain", "no page", "stream", "list", "plain"),
    ("stream",) * 5,
]


@pytest.mark.parametrize("names", PIPELINES, ids=" and ".join)
async def test_requests_that_come_at_once_are_answered_in_order(pair: Pair, names: tuple[str, ...]) -> None:
    await pair.same(lambda side: told(side, names, at_once=True))
    for side in pair.sides:
        asked = sum(STEPS[name].method == "POST" and STEPS[name].status == 200 for name in names)
        assert len(side.bodies()) == asked


@pytest.mark.parametrize("second", ["stream", "list"])
async def test_the_second_of_two_requests_may_come_in_parts_with_the_first(pair: Pair, second: str) -> None:
    async def talk(side: Side) -> list[Answer]:
        one, two = STEPS["plain"].raw(side, "one"), STEPS[second].raw(side, "two")
        answers = []
        for cut in (1, 40, two.index(b"\r\n\r\n") + 2, two.index(b"\r\n\r\n") + 3, len(two) - 1):
            async with side.dial() as wire:
                await wire.send(one + two[:cut], two[cut:])
                answers += [await wire.answer(), await wire.answer(STEPS[second].method)]
                assert await wire.is_open()
        return answers

    answers = await pair.same(talk)
    assert [answer["x-request-id"] for answer in answers] == ["one", "two"] * 5


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("said_close", ["close", "Close", "keep-alive, close"])
async def test_a_client_that_wants_one_answer_gets_one(pair: Pair, streamed: bool, said_close: str) -> None:
    async def talk(side: Side) -> Answer:
        raw = request(CHAT, said(stream=streamed), key=side.key, connection=said_close)
        answer, _ = await side.served(raw)
        async with side.dial() as wire:
            await wire.send(raw + STEPS["plain"].raw(side, "never"))
            await wire.answer()  # what comes behind such a request may be held against it
            assert await wire.rest() == b""
        assert len(side.bodies()) <= 2
        return answer

    answer = await pair.same(talk)
    assert (answer.status, answer.closes) == (200, True)


@pytest.mark.parametrize("keep", [False, True], ids=["once", "keep-alive"])
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_clients_of_old_are_served(pair: Pair, streamed: bool, keep: bool) -> None:
    async def talk(side: Side) -> tuple[Answer, bool]:
        raw = request(CHAT, said(stream=streamed), key=side.key, **({"connection": "keep-alive"} if keep else {}))
        return await side.served(raw.replace(b"HTTP/1.1", b"HTTP/1.0", 1))

    answer, _ = await pair.same(talk)
    assert (answer.version, answer.status, answer.framing) == ("HTTP/1.0", 200, "close" if streamed else "length")
    assert all(f"word{number}".encode() in answer.body for number in range(4))


@pytest.mark.parametrize("path", [*HOT, "/v1/models", "/", "/nowhere"])
async def test_other_methods_are_answered_alike(pair: Pair, path: str) -> None:
    async def talk(side: Side) -> list[Answer]:
        answers = []
        async with side.dial() as wire:
            for method in ("HEAD", "GET", "OPTIONS", "DELETE", "PUT", "PATCH", "QUERY"):
                await wire.send(request(path, key=side.key, method=method))
                answers.append(await wire.answer(method))
            assert await wire.is_open()
        return answers

    for answer in await pair.same(talk):
        assert answer.status in (200, 404, 405)


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://evil.example"])
@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/api/chat"])
async def test_a_page_asks_first(pair: Pair, path: str, origin: str) -> None:
    async def talk(side: Side) -> list[Answer]:
        asks = {"access_control_request_method": "POST", "access_control_request_headers": "authorization,x-api-key"}
        async with side.dial() as wire:
            await wire.send(request(path, method="OPTIONS", origin=origin, **asks))
            first = await wire.answer("OPTIONS")
            await wire.send(request(path, HOT[path], key=side.key, origin=origin))
            return [first, await wire.answer()]

    first, second = await pair.same(talk)
    assert (first.status, second.status) == (204 if "localhost" in origin else 403, 200)


TARGETS = {
    "a query": (f"{CHAT}?beta=true&a=%20b", 200),
    "an empty query": (f"{CHAT}?", 200),
    "a query that is none": (f"{CHAT}?a=b?c=d&&=", 200),
    "a slash more at the end": (f"{CHAT}/", 200),
    "slashes more at the end": (f"{CHAT}///", 200),
    "a slash more at the beginning": (f"/{CHAT}", 404),
    "a slash more inside": ("/v1//chat/completions", 404),
    "an escape": ("/v1/chat/%63ompletions", 200),
    "an escaped slash": ("/v1%2Fchat/completions", 200),
    "an escape that is none": ("/v1/chat/completions%zz", 404),
    "an escaped end of line": (f"{CHAT}%0d%0aa:b", 404),
    "dots": ("/v1/./chat/completions", 404),
    "dots that go up": ("/v1/x/../chat/completions", 404),
    "anthropic's prefix": ("/anthropic/v1/messages", 200),
    "letters of another size": ("/V1/Chat/Completions", 404),
    "a fragment": (f"{CHAT}#there", 200),
    "a semicolon": (f"{CHAT};a=b", 404),
    "an absolute address": (f"http://gateway.example{CHAT}", 200),
    "an absolute address with a query": (f"http://gateway.example:8090{CHAT}?a=b", 200),
    "an absolute address of a pool": (f"http://coding.example.org{CHAT}", 200),
    "an asterisk": ("*", 400),
    "no slash": ("v1/chat/completions", 400),
    "a host alone": ("gateway.example:8090", 400),
}


@pytest.mark.parametrize(("target", "status"), TARGETS.values(), ids=TARGETS)
async def test_a_target_means_the_same_however_it_is_written(pair: Pair, target: str, status: int) -> None:
    body = HOT["/v1/messages" if "messages" in target else CHAT]
    answer, _ = await pair.same(lambda side: side.served(request(target, body, key=side.key)))
    assert answer.status == status


async def test_ends_of_lines_before_a_request_are_nothing(pair: Pair) -> None:
    async def talk(side: Side) -> list[Answer]:
        async with side.dial() as wire:
            await wire.send(b"\r\n" + STEPS["plain"].raw(side, "one"))
            answers = [await wire.answer()]
            await wire.send(b"\r\n\r\n" + STEPS["plain"].raw(side, "two"))
            answers.append(await wire.answer())
            assert await wire.is_open()
            return answers

    assert [answer.status for answer in await pair.same(talk)] == [200, 200]


@pytest.mark.parametrize("asked", ["h2c", "websocket", "TLS/1.0"])
async def test_nothing_is_upgraded(pair: Pair, asked: str) -> None:
    async def talk(side: Side) -> list[Answer]:
        async with side.dial() as wire:
            upgrade = {"connection": "upgrade, http2-settings", "upgrade": asked, "http2_settings": "AAMAAABkAAQ"}
            await wire.send(STEPS["plain"].raw(side, "one", **upgrade))
            answers = [await wire.answer()]
            await wire.send(STEPS["plain"].raw(side, "two"))
            return [*answers, await wire.answer()]

    assert [answer.status for answer in await pair.same(talk)] == [200, 200]


async def test_a_connect_is_no_way_to_anywhere(pair: Pair) -> None:
    async def talk(side: Side) -> Answer:
        async with side.dial() as wire:
            await wire.send(head("CONNECT engine.example:80 HTTP/1.1", {"host": "engine.example:80"}))
            return await wire.answer("CONNECT")

    assert (await pair.same(talk)).status >= 400
