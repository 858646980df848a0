"""What clients meet at the edge: keys, models, refusals in OpenAI's shape, an id on every answer, limits of size."""

from __future__ import annotations

import asyncio
import io
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web

from forebay.wire.v1 import admin_pb2, scheduler_pb2, types_pb2
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_orders import Pace
from tests.gateway.house import OUTCOME, House, ask, eventually, open_house

QUICK = Pace(tokens_per_s=1000, answer_tokens=4)


async def refused(house: House, body: Any = None, **options: Any) -> tuple[int, dict[str, Any], Any]:
    async with house.post(ask() if body is None else body, **options) as answer:
        return answer.status, (await answer.json())["error"], answer.headers


async def test_the_openai_sdk_is_served_streamed_and_plain_and_gets_errors_it_knows(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        messages: Any = [{"role": "user", "content": "hello"}]
        async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=str(house.key), max_retries=0) as sdk:
            plain = await sdk.chat.completions.create(model="fake-model", messages=messages)
            assert plain.choices[0].message.content == "word0 word1 word2 word3"
            assert plain.usage is not None
            assert plain.usage.completion_tokens == 4
            text, usage = "", None
            async for chunk in await sdk.chat.completions.create(
                model="fake-model", messages=messages, stream=True, stream_options={"include_usage": True}
            ):
                text += "".join(choice.delta.content or "" for choice in chunk.choices)
                usage = chunk.usage or usage
            assert text == "word0 word1 word2 word3"
            assert usage is not None
            assert usage.completion_tokens == 4
            listed = [model async for model in await sdk.models.list()]
            assert [(m.id, (m.model_extra or {})["context_length"]) for m in listed] == [("fake-model", 4096)]
            assert (await sdk.models.retrieve("fake-model")).id == "fake-model"
            with pytest.raises(openai.NotFoundError) as unknown:
                await sdk.chat.completions.create(model="nothing", messages=messages)
            assert unknown.value.code == "model_not_found"
            assert unknown.value.request_id
        async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key="fb-000000000000-x", max_retries=0) as sdk:
            with pytest.raises(openai.AuthenticationError) as wrong:
                await sdk.models.list()
            assert wrong.value.code == "invalid_api_key"


async def test_the_sdk_raises_when_a_stream_breaks_in_the_middle(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    engine.faults.add(Fault(FaultKind.CUT_AFTER, chunks=2))
    async with (
        open_house(tmp_path, engine) as house,
        openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=str(house.key), max_retries=0) as sdk,
    ):
        chunks = await sdk.chat.completions.create(
            model="fake-model", messages=[{"role": "user", "content": "x"}], stream=True
        )
        assert (await anext(chunks)).choices[0].delta.role == "assistant"
        with pytest.raises(openai.APIError, match="middle of its answer"):
            _ = [chunk async for chunk in chunks]


async def test_a_key_may_come_in_several_ways(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        for headers, prefix in (
            ({"authorization": f"Bearer {house.key}"}, ""),
            ({"x-api-key": str(house.key)}, ""),
            ({"api-key": str(house.key)}, ""),
            ({"x-goog-api-key": str(house.key), "x-api-key": " "}, ""),
            ({}, f"/k/{house.key}"),
        ):
            async with house.client.get(f"{house.url}{prefix}/v1/models", headers=headers) as answer:
                assert answer.status == 200
                assert answer.headers["x-request-id"]


async def test_a_key_never_reaches_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        url = f"{house.url}/k/{house.key}"
        async with house.client.post(f"{url}/v1/chat/completions", json=ask(), headers={}) as answer:
            assert answer.status == 200
        for header in ("api-key", "x-goog-api-key"):
            async with house.post(ask(), headers={header: str(house.key)}) as answer:
                assert answer.status == 200
        async with house.client.get(f"{url}/nowhere", headers={}) as answer:
            assert answer.status == 404
            assert house.key.secret not in await answer.text()
        reader, writer = await asyncio.open_connection(*house.url.removeprefix("http://").split(":"))
        writer.write(f"BAD /k/{house.key}\x01 HTTP/9\r\n\r\n".encode())
        assert house.key.secret.encode() not in await reader.read()
        writer.close()
    assert house.key.secret not in caplog.text


async def test_bad_keys_are_refused_each_with_its_own_reason_and_one_row(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        expired = house.admin.add_key(expires_at_us=int((time.time() - 1) * 1e6))
        revoked = house.admin.add_key()
        house.admin.revoke(revoked)
        await asyncio.sleep(0.1)
        good = str(house.key)
        for key, reason in (
            ("fb-000000000000-nosuchkey", "invalid_key"),
            (good[:-1] + ("a" if good[-1] != "a" else "b"), "invalid_key"),
            ("garbage", "invalid_key"),
            ("", "invalid_key"),
            (str(expired), "key_expired"),
            (str(revoked), "key_revoked"),
        ):
            status, error, headers = await refused(house, headers={"authorization": f"Bearer {key}"})
            assert (status, error["code"], headers["x-forebay-reason"]) == (401, "invalid_api_key", reason)
        rows = await house.rows(6)
        assert [row.reason for row in rows] == ["invalid_key"] * 4 + ["key_expired", "key_revoked"]
        assert all(OUTCOME(row.outcome) == "OUTCOME_REFUSED" and row.http_status == 401 for row in rows)
        assert all(row.key_id == "" for row in rows)


async def test_models_are_filtered_by_what_the_key_allows(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        await house.put("b1", "http://127.0.0.1:9", models=("fake-model", "other/model"))
        limited = house.admin.add_key(allowed_models=["other/model"])
        await asyncio.sleep(0.1)
        headers = {"authorization": f"Bearer {limited}"}
        async with house.client.get(f"{house.url}/v1/models", headers=headers) as answer:
            assert [model["id"] for model in (await answer.json())["data"]] == ["other/model"]
        async with house.client.get(f"{house.url}/v1/models/other/model", headers=headers) as answer:
            assert (await answer.json())["id"] == "other/model"
        async with house.client.get(f"{house.url}/v1/models/fake-model", headers=headers) as answer:
            assert answer.status == 404
        status, error, answered = await refused(house, headers=headers)
        assert (status, error["code"], answered["x-forebay-reason"]) == (403, "not_allowed", "not_allowed")


async def test_requests_that_make_no_sense_are_refused_with_the_parameter_named(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        for body, param in (
            ({"messages": [{}]}, "model"),
            ({**ask(), "messages": "hi"}, "messages"),
            ({**ask(), "n": 0}, "n"),
            ({**ask(), "stream": "yes"}, "stream"),
        ):
            status, error, headers = await refused(house, body)
            assert (status, error["param"], headers["x-forebay-reason"]) == (400, param, "bad_request")
        async with house.post(data=b"{not json") as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["code"] == "invalid_json"
        status, error, _ = await refused(house, headers={**house.headers, "x-forebay-priority": "now!"})
        assert (status, error["param"]) == (400, "x-forebay-priority")
        rows = await house.rows(6)
        assert {row.reason for row in rows} == {"bad_request"}
        assert {row.key_id for row in rows} == {house.key.public_id}


async def test_wishes_in_headers_reach_the_scheduler_within_what_the_key_allows(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        wishes = {"x-forebay-priority": "system", "x-forebay-deadline-ms": "5000", "x-session-id": "s-1"}
        async with house.post(ask(n=2, max_tokens=7), headers={**house.headers, **wishes}) as answer:
            assert answer.status == 200
        async with house.post(ask()) as answer:
            assert answer.status == 200
        one, two = house.scheduler.submits
        assert (one.band, one.deadline_ms, one.session_key) == (types_pb2.BAND_INTERACTIVE, 5000, "s-1")
        assert (one.width, one.max_output_tokens, one.user_id, one.group_id) == (2, 7, "u-1", "g-1")
        assert one.prompt_tokens > 0
        assert (two.band, two.deadline_ms) == (types_pb2.BAND_STANDARD, 0)


async def test_request_ids_are_echoed_when_sane_and_made_when_not(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        for given, echoed in (("my-id.1", True), ("x" * 129, False), ("two words", False), ("", False)):
            async with house.post(ask(), headers={**house.headers, "x-request-id": given}) as answer:
                told = answer.headers["x-request-id"]
                assert (told == given) is echoed
                assert told
        assert [row.request_id == "my-id.1" for row in await house.rows(4)] == [True, False, False, False]


async def test_unknown_addresses_and_methods_are_refused_in_the_same_shape_and_have_no_row(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        async with house.client.get(f"{house.url}/v1/nothing") as answer:
            assert answer.status == 404
            assert (await answer.json())["error"]["code"] == "unknown_url"
            assert answer.headers["x-request-id"]
        async with house.client.get(f"{house.url}/v1/chat/completions") as answer:
            assert answer.status == 405
            assert answer.headers["allow"] == "POST"
            assert (await answer.json())["error"]["code"] == "method_not_supported"
        async with house.client.post(f"{house.url}/v1/realtime") as answer:
            assert answer.status == 501
            assert answer.headers["x-should-retry"] == "false"
        async with house.client.post(f"{house.url}/v1/responses/compact") as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (501, "not_implemented")
        await house.rows(0, wait_s=0.1)


async def test_the_front_page_says_that_ollama_runs_or_which_addresses_there_are(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        async with house.client.get(f"{house.url}/", headers={"accept": "application/json"}) as answer:
            assert "/v1/models" in (await answer.json())["addresses"]
        async with house.client.get(f"{house.url}/") as answer:
            assert (answer.content_type, await answer.text()) == ("text/plain", "Ollama is running")
            assert answer.headers["x-request-id"]
        async with house.client.head(f"{house.url}/") as answer:
            assert answer.status == 200
            assert await answer.read() == b""


@pytest.mark.parametrize(
    ("path", "of_error"),
    [
        ("/v1/chat/completions", lambda told: told["error"]["message"]),
        ("/v1/responses", lambda told: told["error"]["message"]),
        ("/v1/messages", lambda told: (told["type"], told["error"]["message"])[1]),
        ("/api/chat", lambda told: told["error"]),
    ],
)
@pytest.mark.parametrize("encoding", ["br", "zstd"])
async def test_a_body_that_is_encoded_as_nobody_here_reads_is_refused_in_its_dialect(
    tmp_path: Path, path: str, of_error: Callable[[Any], str], encoding: str
) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        headers = {**house.headers, "content-encoding": encoding}
        body = b"\x28\xb5\x2f\xfd\x00"
        async with house.client.post(f"{house.url}/k/{house.key}{path}?a=b", data=body, headers=headers) as answer:
            assert answer.status == 400
            message = of_error(await answer.json())
        assert "zstd" in message
        assert "gzip or deflate" in message


@pytest.mark.parametrize(
    "nonsense",
    [b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"],
    ids=["no-http", "two-lengths"],
)
async def test_what_is_not_http_is_answered_with_an_id_too(tmp_path: Path, nonsense: bytes) -> None:
    async with open_house(tmp_path) as house:
        reader, writer = await asyncio.open_connection(*house.url.removeprefix("http://").split(":"))
        writer.write(nonsense)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert re.match(rb"HTTP/1\.[01] 400 ", head)
        assert b"x-request-id: req-" in head.lower()
        assert json.loads(body)["error"]["type"] == "invalid_request_error"


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK), max_body_bytes=1000) as house:
        status, error, headers = await refused(house, ask(user="x" * 2000))
        assert (status, error["code"], headers["x-forebay-reason"]) == (413, "request_too_large", "body_too_large")

        async def pieces() -> Any:
            for _ in range(100):
                yield b"x" * 100

        async with house.post(data=pieces()) as answer:
            assert answer.status == 413
        assert {row.reason for row in await house.rows(2)} == {"body_too_large"}


async def test_bodies_beyond_the_budget_are_refused_with_a_time_to_come_back(tmp_path: Path) -> None:
    engine = FakeEngine(slots=1)
    async with open_house(tmp_path, engine, held_bodies_bytes=3000, spooled_bodies_bytes=0) as house:
        house.scheduler.slots["b1"] = 0
        waiting = asyncio.create_task(refused(house, ask(user="x" * 2000)))
        await eventually(lambda: house.scheduler.queue)
        status, _, headers = await refused(house, ask(user="x" * 2000))
        assert (status, headers["x-forebay-reason"]) == (503, "queue_full")
        assert int(headers["retry-after-ms"]) == 2000
        waiting.cancel()
        await asyncio.wait([waiting])
        house.scheduler.slots["b1"] = 1
        await eventually(lambda: house.metric("forebay_gateway_held_body_bytes") == 0)
        async with house.post(ask(user="x" * 2000)) as answer:
            assert answer.status == 200


async def test_a_client_that_stops_sending_is_given_up(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(), body_idle_s=0.2) as house:
        reader, writer = await asyncio.open_connection(*house.url.removeprefix("http://").split(":"))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {house.key}\r\ncontent-length: 9\r\n\r\n"
        writer.write(head.encode() + b"{")
        assert (await reader.readline()).startswith(b"HTTP/1.1 408")
        writer.close()


async def test_a_stream_to_a_client_of_old_ends_although_it_asked_to_keep_the_connection(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        reader, writer = await asyncio.open_connection(*house.url.removeprefix("http://").split(":"))
        body = json.dumps(ask(stream=True)).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.0\r\nconnection: keep-alive\r\nx-api-key: {house.key}\r\n"
            f"expect: 100-continue\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
        assert answer.endswith(b"data: [DONE]\n\n")
        assert b"transfer-encoding" not in answer.lower()


async def test_a_request_with_a_picture_in_it_reaches_its_engine_whole(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    async with open_house(tmp_path, engine) as house:
        body = io.BytesIO(json.dumps(ask(user="x" * (3 << 20))).encode())
        async with house.post(data=body) as answer:
            assert answer.status == 200, await answer.text()
        assert len(engine.record.requests[0].body["user"]) == 3 << 20


async def test_a_client_that_expects_a_hundred_gets_it(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, house.post(ask(), expect100=True) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("reason", "status", "code", "retries"),
    [
        ("quota_spent", 429, "insufficient_quota", False),
        ("rate_limited", 429, "rate_limit_exceeded", True),
        ("queue_full", 503, "queue_full", True),
        ("no_backend", 503, "no_backend", True),
        ("width_too_large", 400, "invalid_value", False),
        ("a word of tomorrow", 500, "internal_error", False),
    ],
)
async def test_the_schedulers_refusals_reach_the_client(
    tmp_path: Path, reason: str, status: int, code: str, retries: bool
) -> None:
    async with open_house(tmp_path, FakeEngine()) as house:
        house.scheduler.reject_with = scheduler_pb2.Reject(reason=reason, retry_after_ms=1500, message="So it is.")
        told, error, headers = await refused(house, ask(stream=True))
        assert (told, error["code"], error["message"]) == (status, code, "So it is.")
        assert (headers.get("retry-after"), headers.get("retry-after-ms")) == (
            ("2", "1500") if retries else (None, None)
        )
        assert headers.get("x-should-retry") == ("false" if reason == "quota_spent" else None)
        (row,) = await house.rows(1)
        assert OUTCOME(row.outcome) == "OUTCOME_REFUSED"
        assert row.reason == headers["x-forebay-reason"]


async def test_operators_see_which_backend_answered(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        operator = house.admin.add_key(role=admin_pb2.ROLE_OPERATOR)
        await asyncio.sleep(0.1)
        async with house.post(ask(), headers={"x-api-key": str(operator)}) as answer:
            assert answer.headers["x-forebay-backend"] == "name-of-b1"


async def test_a_model_is_called_what_the_client_called_it(tmp_path: Path) -> None:
    """Engines that answer under another name, such as that of a file."""

    async def answer_as_file(request: web.Request) -> web.StreamResponse:
        chunk = {
            "model": "/models/x.gguf",
            "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}],
        }
        if (await request.json()).get("stream"):
            text = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
            return web.Response(text=text, content_type="text/event-stream")
        return web.json_response({"model": "/models/x.gguf", "choices": [{"index": 0, "message": {"content": "hi"}}]})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer_as_file)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with open_house(tmp_path) as house:
            house.scheduler.slots["b1"] = 1
            await house.put("b1", f"http://127.0.0.1:{site.port}/")
            await asyncio.sleep(0.1)
            async with house.post(ask()) as answer:
                assert (await answer.json())["model"] == "fake-model"
            async with house.post(ask(stream=True)) as answer:
                assert b'"model":"fake-model"' in await answer.read()
    finally:
        await runner.cleanup()


async def test_no_answer_tells_whose_server_it_is(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        for streamed in (True, False):
            async with house.post(ask(stream=streamed)) as answer:
                assert answer.headers["server"] == "forebay"
        for path in ("/v1/models", "/nowhere"):
            async with house.client.get(f"{house.url}{path}", headers=house.headers) as answer:
                assert answer.headers["server"] == "forebay"
        reader, writer = await asyncio.open_connection(*house.url.removeprefix("http://").split(":"))
        writer.write(b"this is no HTTP\r\n\r\n")
        answer_bytes = await reader.read()
        writer.close()
        assert b"aiohttp" not in answer_bytes.lower()
        assert b"server: forebay" in answer_bytes.lower()
