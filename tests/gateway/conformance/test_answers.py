"""What each hot route answers, and each kind of refusal in each dialect: the same on both ways in."""

from __future__ import annotations

from typing import Any

import pytest

from forebay.wire.v1 import scheduler_pb2
from tests.fakes.engine_faults import Fault, FaultKind
from tests.gateway.conformance.pair import HOST, HOT, NOWHERE, ODD, OLLAMA, PREFIX, STREAMED, Pair, Side, said
from tests.gateway.conformance.wire import Answer, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
DIALECTS = (CHAT, "/v1/messages", "/api/chat")


@pytest.mark.parametrize("path", HOT)
async def test_a_plain_answer_has_a_length_and_leaves_the_connection_open(pair: Pair, path: str) -> None:
    answer = await pair.same(lambda side: side.ask(path, HOT[path], x_request_id="my-id.1"))
    assert (answer.status, answer.framing, answer.closes) == (200, "length", False)
    assert answer["x-request-id"] == "my-id.1"
    assert answer["x-forebay-model"] == "fake-model"


@pytest.mark.parametrize("path", STREAMED)
async def test_a_streamed_answer_comes_in_chunks_and_leaves_the_connection_open(pair: Pair, path: str) -> None:
    answer = await pair.same(lambda side: side.ask(path, STREAMED[path]))
    assert (answer.status, answer.framing, answer.closes) == (200, "chunked", False)
    assert all(f"word{number}".encode() in answer.body for number in range(4))


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", CHAT])
async def test_what_ollama_says_itself_passes(pair: Pair, path: str, streamed: bool) -> None:
    answer = await pair.same(lambda side: side.ask(path, {**HOT[path], "model": OLLAMA, "stream": streamed}))
    assert (answer.status, answer.framing) == (200, "chunked" if streamed else "length")
    assert b"word3" in answer.body


WRONG: dict[str, tuple[int, dict[str, Any]]] = {
    "no model": (404, {"model": "nothing"}),
    "a model that is no text": (400, {"model": 7}),
    "a message that is none": (400, {"messages": [7]}),
    "messages that are text": (400, {"messages": "hi"}),
    "stream that is no yes or no": (400, {"stream": "yes"}),
    "a context that is too short": (400, {"messages": [{"role": "user", "content": "word " * 6000}]}),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("path", DIALECTS)
async def test_what_makes_no_sense_is_refused_alike(pair: Pair, path: str, wrong: str) -> None:
    status, fields = WRONG[wrong]
    answer = await pair.same(lambda side: side.ask(path, {**HOT[path], **fields}))
    assert (answer.status, answer.closes) == (status, False)
    assert answer["x-forebay-reason"]


NOT_JSON: dict[str, bytes] = {
    "nothing": b"",
    "half an object": b'{"model": "fake-model", "messages": [',
    "two objects": b'{"model": "fake-model"}{"model": "fake-model"}',
    "no object": b"[1]",
    "no UTF-8": b'{"model": "fake-model", "messages": [{"role": "user", "content": "\xff\xfe"}]}',
    "a lone surrogate": b'{"model": "fake-model", "messages": [{"role": "user", "content": "\\ud800"}]}',
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
@pytest.mark.parametrize("path", DIALECTS)
async def test_what_is_no_json_is_refused_alike(pair: Pair, path: str, body: bytes) -> None:
    answer = await pair.same(lambda side: side.ask(path, body))
    assert (answer.status, answer.closes) == (400, False)
    assert all(side.bodies() == [] for side in pair.sides)


KEYS: dict[str, dict[str, str]] = {
    "none": {},
    "empty": {"authorization": "Bearer "},
    "garbage": {"authorization": "Bearer garbage"},
    "unknown": {"authorization": "Bearer fb-000000000000-nosuchkey"},
    "basic": {"authorization": "Basic YTpi"},
    "of another header": {"x-api-key": "fb-000000000000-nosuchkey"},
}


@pytest.mark.parametrize("headers", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("path", DIALECTS)
async def test_a_key_that_is_none_is_refused_alike(pair: Pair, path: str, headers: dict[str, str]) -> None:
    told = {name.replace("-", "_"): value for name, value in headers.items()}
    answer, _ = await pair.same(lambda side: side.served(request(path, HOT[path], **told)))
    assert answer.status in (401, 403)
    assert answer["x-forebay-reason"] == "invalid_key"


@pytest.mark.parametrize("way", ["x-api-key", "api-key", "x-goog-api-key", "path", "path behind the prefix", "bearer"])
@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/api/generate"])
async def test_a_key_may_come_in_every_way(pair: Pair, path: str, way: str) -> None:
    async def talk(side: Side) -> tuple[Answer, bool]:
        match way:
            case "path":
                raw = request(f"/k/{side.key}{path}", HOT[path])
            case "path behind the prefix":
                raw = request(f"{PREFIX}/k/{side.key}{path}", HOT[path])
            case "bearer":
                raw = request(path, HOT[path], authorization=f"bEaReR   {side.key} ")
            case _:
                raw = request(path, HOT[path], **{way.replace("-", "_"): side.key})
        return await side.served(raw)

    answer, is_open = await pair.same(talk)
    assert (answer.status, is_open) == (200, True)


@pytest.mark.parametrize("path", HOT)
async def test_virtual_endpoints_are_the_same_addresses(pair: Pair, path: str) -> None:
    async def talk(side: Side) -> list[Answer]:
        return [
            await side.ask(f"{PREFIX}{path}", HOT[path]),
            await side.ask(path, HOT[path], host=f"{HOST}:80"),
            await side.ask(f"/nowhere{path}", HOT[path]),
            await side.ask(f"{PREFIX}{PREFIX}{path}", HOT[path]),
        ]

    assert [answer.status for answer in await pair.same(talk)] == [200, 200, 404, 404]


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("reason", ["queue_full", "quota_spent", "rate_limited", "no_backend"])
@pytest.mark.parametrize("path", DIALECTS)
async def test_the_schedulers_refusals_are_told_alike(pair: Pair, path: str, reason: str, streamed: bool) -> None:
    async def talk(side: Side) -> Answer:
        reject = scheduler_pb2.Reject(reason=reason, retry_after_ms=1500, message="So it is.")
        side.house.scheduler.reject_with = reject
        return await side.ask(path, {**HOT[path], "stream": streamed})

    answer = await pair.same(talk)
    assert (answer.status >= 400, answer["x-forebay-reason"], answer.closes) == (True, reason, False)


BROKEN: dict[str, Fault] = {
    "cut": Fault(FaultKind.CUT_AFTER, chunks=2),
    "reset": Fault(FaultKind.CUT_AFTER, chunks=2, reset=True),
    "an error event": Fault(FaultKind.ERROR_EVENT_AFTER, chunks=2),
    "no JSON": Fault(FaultKind.MALFORMED_SSE, chunks=2),
    "no usage": Fault(FaultKind.NO_USAGE),
    "no end": Fault(FaultKind.NO_DONE),
    "comments": Fault(FaultKind.COMMENTS),
    "closed at once": Fault(FaultKind.CLOSE_BEFORE_HEADERS, times=None),
    "overloaded": Fault(FaultKind.STATUS, status=503, times=None),
    "at fault": Fault(FaultKind.STATUS, status=500, times=None),
    "refused": Fault(FaultKind.STATUS, status=422, message="Not like this."),
    "throttled": Fault(FaultKind.STATUS, status=429, retry_after_s=3, times=None),
}


@pytest.mark.parametrize("fault", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("path", DIALECTS)
async def test_an_engine_that_breaks_is_told_of_alike(pair: Pair, path: str, streamed: bool, fault: Fault) -> None:
    async def talk(side: Side) -> Answer:
        side.engine.faults.add(fault)
        return await side.ask(path, {**HOT[path], "stream": streamed})

    answer = await pair.same(talk)
    assert answer.status == 200 or answer["x-forebay-reason"]


ODD_ANSWERS: dict[str, list[bytes]] = {
    "nothing": [],
    "no HTTP": [b"\x16\x03\x01\x02\x00 what is this?\r\n\r\n"],
    "half a head": [b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"],
    "half a body": [b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"],
    "no JSON": [b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfour"],
    "a bad chunk": [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"],
    "no end of its chunks": [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"],
    "two lengths": [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}x"],
}


@pytest.mark.parametrize("pieces", ODD_ANSWERS.values(), ids=ODD_ANSWERS)
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_an_engine_that_speaks_no_http_is_told_of_alike(pair: Pair, streamed: bool, pieces: list[bytes]) -> None:
    async def talk(side: Side) -> tuple[int, str | None]:
        side.odd.answer = pieces
        answer = await side.ask(CHAT, said(model=ODD, stream=streamed))
        assert b"what is this" not in answer.body
        return answer.status, answer.get("x-forebay-reason")  # how it broke is told in the words of whoever read it

    status, _ = await pair.same(talk)
    assert status == 502 or streamed


@pytest.mark.parametrize("path", DIALECTS)
async def test_an_engine_that_is_not_there_is_told_of_alike(pair: Pair, path: str) -> None:
    answer = await pair.same(lambda side: side.ask(path, {**HOT[path], "model": NOWHERE}))
    assert answer.status >= 500
    assert answer["x-forebay-reason"] == "engine_failed"


WISHES: dict[str, dict[str, str]] = {
    "a sane id": {"x_request_id": "my-id.2"},
    "an id that is too long": {"x_request_id": "x" * 129},
    "an id of two words": {"x_request_id": "two words"},
    "an allowed page": {"origin": "http://localhost:3000"},
    "a page from elsewhere": {"origin": "https://evil.example"},
    "no page": {"origin": "null"},
    "a bad priority": {"x_forebay_priority": "now!"},
    "a bad deadline": {"x_forebay_deadline_ms": "soon"},
    "anthropic's version": {"anthropic_version": "2023-06-01"},
    "a browser's whole set": {
        "user_agent": "Mozilla/5.0 (X11) \xe4\xf6\xfc",
        "accept": "text/event-stream, */*;q=0.1",
        "accept_encoding": "gzip, br",
        "cookie": "a=b; c=d",
        "referer": "http://localhost/",
    },
}


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("headers", WISHES.values(), ids=WISHES)
async def test_wishes_in_headers_mean_the_same(pair: Pair, headers: dict[str, str], streamed: bool) -> None:
    async def talk(side: Side) -> list[Answer]:
        return [await side.ask(path, {**HOT[path], "stream": streamed}, **headers) for path in (CHAT, "/v1/messages")]

    for answer in await pair.same(talk):
        if headers.get("x_request_id") == "my-id.2":
            assert answer["x-request-id"] == "my-id.2"
        assert (answer.get("access-control-allow-origin") is not None) is ("localhost" in headers.get("origin", ""))
