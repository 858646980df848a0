"""The fake engine's own promises: words, pace, slots, record, flavours. Wire shapes are held to the real engine in
`tests/contract/test_engine_contract.py`."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import aiohttp
import pytest

from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import BadOrder, Pace, answer, order_chat, word
from tests.fakes.engine_process import EngineControl, open_engine_process

MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "one two three"}]


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "fake-model", "messages": MESSAGES, **fields}


async def post(session: aiohttp.ClientSession, url: str, body: Any, **headers: str) -> tuple[int, Any]:
    async with session.post(url, json=body, headers=headers) as response:
        return response.status, await response.json()


async def test_the_answer_is_the_same_words_and_usage_is_exact(
    engine: FakeEngine, session: aiohttp.ClientSession
) -> None:
    _, told = await post(session, f"{engine.url}/v1/chat/completions", chat(n=2))
    assert {choice["message"]["content"] for choice in told["choices"]} == {"".join(word(i) for i in range(10))}
    # Two messages of three tokens overhead, and five words; two choices of ten words.
    assert told["usage"] == {"prompt_tokens": 11, "completion_tokens": 20, "total_tokens": 31}


@pytest.mark.parametrize(
    ("fields", "text", "tokens", "finish"),
    [
        ({}, "word0 word1 word2 word3", 4, "stop"),
        ({"max_tokens": 2}, "word0 word1", 2, "length"),
        ({"max_tokens": 4}, "word0 word1 word2 word3", 4, "length"),
        ({"max_tokens": 6, "ignore_eos": True}, "word0 word1 word2 word3 word4 word5", 6, "length"),
        ({"stop": "rd2"}, "word0 word1 wo", 3, "stop"),
        ({"stop": ["1 word", "never"]}, "word0 word", 3, "stop"),
        ({"stop": "word9"}, "word0 word1 word2 word3", 4, "stop"),
    ],
)
def test_an_answer_ends_where_the_request_says(fields: dict[str, Any], text: str, tokens: int, finish: str) -> None:
    made = answer(order_chat(chat(**fields)), Pace(answer_tokens=4), context_tokens=100)
    assert (made.text, made.tokens, made.finish) == (text, tokens, finish)


def test_an_answer_ends_where_the_context_does() -> None:
    made = answer(order_chat(chat()), Pace(answer_tokens=50), context_tokens=20)
    assert (made.tokens, made.finish) == (9, "length")


def test_a_request_chooses_its_pace_by_model_then_header_then_body() -> None:
    pace = Pace().wished(
        "fake-model@tokens_per_s=5,ttft_s=1",
        {"x-fake-ttft-s": "2", "x-fake-answer-tokens": "3"},
        {"fake": {"ttft_s": 4}},
    )
    assert pace == Pace(tokens_per_s=5.0, ttft_s=4.0, answer_tokens=3)
    with pytest.raises(BadOrder):
        Pace().wished("fake-model@speed=5", {}, {})


async def test_tokens_come_at_the_pace(engine: FakeEngine, session: aiohttp.ClientSession) -> None:
    body = chat(stream=True, fake={"tokens_per_s": 50, "ttft_s": 0.2, "answer_tokens": 6})
    began = time.monotonic()
    arrivals: list[float] = []
    async with session.post(f"{engine.url}/v1/chat/completions", json=body) as response:
        async for line in response.content:
            if b"word" in line:
                arrivals.append(time.monotonic() - began)
    assert arrivals[0] >= 0.2
    assert arrivals[-1] >= 0.3
    assert len(arrivals) == 6


async def test_what_exceeds_the_slots_waits_and_the_record_tells_what_was_asked_of_it(
    engine: FakeEngine, session: aiohttp.ClientSession, control: EngineControl
) -> None:
    url = f"{engine.url}/v1/chat/completions"
    answers = await asyncio.gather(*(post(session, url, chat(n=n)) for n in (1, 2, 1)))
    assert [status for status, _ in answers] == [200, 200, 200]
    seen = await control.seen()
    assert (seen["slots"], seen["peak_running"], seen["peak_width"]) == (2, 2, 4)
    assert sorted(request["width"] for request in seen["requests"]) == [1, 1, 2]
    for request in seen["requests"]:
        moments = [request[name] for name in ("arrived_at", "started_at", "first_token_at", "freed_at", "ended_at")]
        assert moments == sorted(moments)
    await control.reset()
    assert (await control.seen())["peak_width"] == 0


async def test_an_engine_that_refuses_beyond_its_slots_says_503(session: aiohttp.ClientSession) -> None:
    async with FakeEngine(slots=1, refuses_beyond_slots=True, pace=Pace(ttft_s=0.2)) as engine:
        url = f"{engine.url}/v1/chat/completions"
        answers = await asyncio.gather(*(post(session, url, chat(max_tokens=2)) for _ in range(2)))
    assert sorted(status for status, _ in answers) == [200, 503]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_is_noticed_at_once_and_its_slot_is_free(engine: FakeEngine, stream: bool) -> None:
    async with aiohttp.ClientSession() as session:
        asking = asyncio.create_task(
            post(session, f"{engine.url}/v1/chat/completions", chat(stream=stream, fake={"ttft_s": 20}))
        )
        while engine.slots.running == 0:
            await asyncio.sleep(0.005)
        left_at = time.monotonic()
        asking.cancel()
    async with asyncio.timeout(30):
        while engine.slots.running:
            await asyncio.sleep(0.005)
    (seen,) = engine.record.requests
    assert seen.ending == "disconnected"
    assert seen.disconnected_at is not None
    assert left_at <= seen.disconnected_at <= left_at + 0.3
    assert seen.freed_at is not None
    assert seen.freed_at <= left_at + 0.3


async def test_a_slow_reader_slows_the_engine() -> None:
    tokens = 200_000  # far more than the kernel's buffers hold
    async with FakeEngine(context_tokens=2 * tokens, pace=Pace(tokens_per_s=1e9, answer_tokens=tokens)) as engine:
        body = json.dumps(chat(stream=True)).encode()
        _, writer = await asyncio.open_connection(engine.host, engine.port, limit=1024)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body))
        writer.write(body)
        made = [-1, 0]
        while made[-1] != made[-2] or made[-1] == 0:
            await asyncio.sleep(0.2)
            made.append(engine.record.requests[0].tokens_made if engine.record.requests else 0)
        assert made[-1] < tokens
        assert engine.slots.running == 1
        writer.close()
        await writer.wait_closed()


async def test_an_api_key_is_demanded_everywhere_but_on_health(session: aiohttp.ClientSession) -> None:
    async with FakeEngine(api_key="secret") as engine:
        url = f"{engine.url}/v1/chat/completions"
        status, told = await post(session, url, chat(max_tokens=1))
        assert (status, told["error"]["type"]) == (401, "authentication_error")
        assert (await post(session, url, chat(max_tokens=1), authorization="Bearer secret"))[0] == 200
        async with session.get(f"{engine.url}/health") as response:
            assert response.status == 200


async def test_embeddings_are_one_unit_vector_for_each_text(engine: FakeEngine, session: aiohttp.ClientSession) -> None:
    body = {"model": "fake-model", "input": ["a b", "c", "a b"]}
    _, told = await post(session, f"{engine.url}/v1/embeddings", body)
    first, second, third = (row["embedding"] for row in told["data"])
    assert first == third != second
    assert sum(x * x for x in first) == pytest.approx(1)
    assert told["usage"]["prompt_tokens"] == 5


@pytest.mark.parametrize(("path", "field"), [("/api/chat", "message"), ("/api/generate", "response")])
async def test_ollama_streams_objects_by_line_unless_told_not_to(
    engine: FakeEngine, session: aiohttp.ClientSession, path: str, field: str
) -> None:
    body = {"model": "fake-model:latest", "messages": MESSAGES, "prompt": "one two", "options": {"num_predict": 3}}
    async with session.post(engine.url + path, json=body) as response:
        assert response.content_type == "application/x-ndjson"
        events = [json.loads(line) for line in (await response.text()).splitlines()]
    *pieces, last = events
    assert [event["done"] for event in events] == [False, False, False, True]
    assert (last["done_reason"], last["eval_count"]) == ("length", 3)
    _, whole = await post(session, engine.url + path, body | {"stream": False})
    texts = [event[field]["content"] if field == "message" else event[field] for event in (*pieces, whole)]
    assert "".join(texts[:-1]) == texts[-1] == "word0 word1 word2"


async def test_ollama_tells_unknown_models_and_errors_as_a_string(
    engine: FakeEngine, session: aiohttp.ClientSession
) -> None:
    status, told = await post(session, f"{engine.url}/api/chat", chat(model="nobody"))
    assert (status, told) == (404, {"error": "model 'nobody' not found"})
    assert (await post(session, f"{engine.url}/api/show", {"model": "nobody"}))[0] == 404


@pytest.mark.parametrize(
    ("flavour", "there", "missing"),
    [
        (Flavour.VLLM, ["/version", "/health", "/metrics", "/v1/models"], ["/slots", "/api/tags"]),
        (Flavour.SGLANG, ["/health", "/metrics", "/v1/models"], ["/version", "/slots", "/props", "/api/tags"]),
        (Flavour.LLAMA_CPP, ["/slots", "/props", "/health", "/metrics", "/v1/models"], ["/version", "/api/version"]),
        (
            Flavour.OLLAMA,
            ["/", "/api/version", "/api/tags", "/api/ps", "/v1/models"],
            ["/health", "/slots", "/metrics"],
        ),
    ],
)
async def test_a_flavour_answers_what_its_engine_answers(
    session: aiohttp.ClientSession, flavour: Flavour, there: list[str], missing: list[str]
) -> None:
    statuses: dict[str, int] = {}
    async with FakeEngine(flavour=flavour) as engine:
        for path in (*there, *missing):
            async with session.get(engine.url + path) as response:
                statuses[path] = response.status
    assert statuses == dict.fromkeys(there, 200) | dict.fromkeys(missing, 404)


async def test_vllm_metrics_count_what_runs_and_what_waits(engine: FakeEngine, session: aiohttp.ClientSession) -> None:
    url = f"{engine.url}/v1/chat/completions"
    asking = [asyncio.create_task(post(session, url, chat(n=2, fake={"ttft_s": 0.3}))) for _ in range(2)]
    while engine.slots.waiting == 0:
        await asyncio.sleep(0.005)
    async with session.get(f"{engine.url}/metrics") as response:
        text = await response.text()
    assert 'vllm:num_requests_running{engine="0",model_name="fake-model"} 2.0' in text
    assert 'vllm:num_requests_waiting{engine="0",model_name="fake-model"} 2.0' in text
    assert 'vllm:kv_cache_usage_perc{engine="0",model_name="fake-model"} 1.0' in text
    assert [status for status, _ in await asyncio.gather(*asking)] == [200, 200]


async def test_as_a_process_it_is_driven_by_its_control_url_and_its_death_breaks_streams(
    session: aiohttp.ClientSession,
) -> None:
    async with open_engine_process("--slots", "1", "--model", "small", "--tokens-per-s", "20") as engine:
        await engine.set_pace(answer_tokens=5)
        url = f"{engine.url}/v1/chat/completions"
        _, told = await post(session, url, chat(model="small"))
        assert told["usage"]["completion_tokens"] == 5
        assert (await engine.seen())["requests"][0]["model"] == "small"
        async with session.post(url, json=chat(model="small", stream=True)) as response:
            await response.content.readline()
            await engine.kill()
            with pytest.raises(aiohttp.ClientError):
                await response.read()
