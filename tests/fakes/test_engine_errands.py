"""The fake engine's pages that make no tokens: ranks, scores, moderations, pictures, sound, tokens; and that they are work
like any other, with slots, record and faults."""

from __future__ import annotations

import asyncio
import base64
import io
import wave
from typing import Any

import aiohttp
import pytest

from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.fakes.engine_process import EngineControl

MODEL = {"model": "fake-model"}
SOUND = b"0123456789"


async def post(session: aiohttp.ClientSession, engine: FakeEngine, path: str, body: Any) -> tuple[int, Any]:
    async with session.post(engine.url + path, json=body) as response:
        return response.status, await response.json()


def form(**fields: str | bytes) -> aiohttp.FormData:
    """Bytes are files."""
    made = aiohttp.FormData()
    for name, value in fields.items():
        if isinstance(value, bytes):
            made.add_field(name, value, filename=f"{name}.bin", content_type="application/octet-stream")
        else:
            made.add_field(name, value)
    return made


# Numbers


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
async def test_documents_are_ranked_by_the_share_of_the_querys_words(
    engine: FakeEngine, session: aiohttp.ClientSession, path: str
) -> None:
    documents = ["nothing here", {"text": "A river and a boat"}, "the river"]
    _, told = await post(session, engine, path, MODEL | {"query": "river boat", "documents": documents})
    assert told["results"] == [
        {"index": 1, "document": {"text": "A river and a boat"}, "relevance_score": 1.0},
        {"index": 2, "document": {"text": "the river"}, "relevance_score": 0.5},
        {"index": 0, "document": {"text": "nothing here"}, "relevance_score": 0.0},
    ]
    assert (told["model"], told["usage"]) == ("fake-model", {"total_tokens": 15})
    _, told = await post(session, engine, path, MODEL | {"query": "river boat", "documents": documents, "top_n": 1})
    assert [result["index"] for result in told["results"]] == [1]


@pytest.mark.parametrize(
    ("first", "second", "scores"),
    [
        ("one two", "two three", [0.5]),
        ("one two", ["one", "one two"], [0.5, 1.0]),
        (["one", "two"], ["one", "one"], [1.0, 0.0]),
    ],
)
async def test_pairs_have_scores(
    engine: FakeEngine, session: aiohttp.ClientSession, first: Any, second: Any, scores: list[float]
) -> None:
    _, told = await post(session, engine, "/v1/score", MODEL | {"text_1": first, "text_2": second})
    assert told["object"] == "list"
    assert told["data"] == [{"index": i, "object": "score", "score": score} for i, score in enumerate(scores)]


@pytest.mark.parametrize(
    ("given", "flagged"),
    [
        ("all is well", [False]),
        (["a Bad thing", "good"], [True, False]),
        ([{"type": "text", "text": "bad"}, {"type": "image_url", "image_url": {"url": "https://x/y"}}], [True]),
    ],
)
async def test_what_is_bad_is_flagged_even_for_no_model_by_name(
    engine: FakeEngine, session: aiohttp.ClientSession, given: Any, flagged: list[bool]
) -> None:
    _, told = await post(session, engine, "/v1/moderations", {"input": given})
    assert [result["flagged"] for result in told["results"]] == flagged
    for result in told["results"]:
        assert any(result["categories"].values()) is result["flagged"]
        assert result["category_scores"].keys() == result["categories"].keys()


# Pictures and sound


async def test_pictures_are_real_and_as_many_as_asked_for(engine: FakeEngine, session: aiohttp.ClientSession) -> None:
    _, told = await post(session, engine, "/v1/images/generations", MODEL | {"prompt": "a dot", "n": 2})
    first, second = (base64.b64decode(picture["b64_json"], validate=True) for picture in told["data"])
    assert first == second
    assert first.startswith(b"\x89PNG\r\n\x1a\n")
    assert first.endswith(b"IEND\xaeB`\x82")
    upload = form(model="fake-model", prompt="a dot", image=first)
    async with session.post(engine.url + "/v1/images/edits", data=upload) as response:
        assert len((await response.json())["data"]) == 1
    assert engine.record.requests[-1].body["image"] == {
        "filename": "image.bin",
        "content_type": "application/octet-stream",
        "bytes": len(first),
    }


async def test_speech_is_a_real_sound_that_comes_in_pieces_and_holds_its_slot_until_the_end(
    engine: FakeEngine, session: aiohttp.ClientSession
) -> None:
    body = MODEL | {"input": "hello", "voice": "alto", "fake": {"tokens_per_s": 10}}
    async with session.post(engine.url + "/v1/audio/speech", json=body) as response:
        assert response.content_type == "audio/wav"
        assert response.content_length is None
        raw = await response.content.readany()
        assert engine.slots.running == 1
        raw += await response.read()
    with wave.open(io.BytesIO(raw)) as sound:
        assert (sound.getnframes(), sound.getframerate()) == (800, 8000)
    assert engine.slots.running == 0


async def test_a_listener_that_goes_frees_the_slot_of_its_speech(
    engine: FakeEngine, session: aiohttp.ClientSession
) -> None:
    body = MODEL | {"input": "hello", "fake": {"tokens_per_s": 1}}
    async with session.post(engine.url + "/v1/audio/speech", json=body) as response:
        await response.content.readany()
        response.close()
    async with asyncio.timeout(30):
        while engine.slots.running:
            await asyncio.sleep(0.005)
    assert [seen.ending for seen in engine.record.requests] == ["disconnected"]


@pytest.mark.parametrize("task", ["transcriptions", "translations"])
async def test_a_transcript_says_how_much_was_heard_in_the_wanted_shape(
    engine: FakeEngine, session: aiohttp.ClientSession, task: str
) -> None:
    told: dict[str, str] = {}
    for shape in ("json", "text", "verbose_json", "srt", "vtt"):
        upload = form(model="fake-model", language="de", response_format=shape, file=SOUND)
        async with session.post(f"{engine.url}/v1/audio/{task}", data=upload) as response:
            assert response.content_type == ("application/json" if "json" in shape else "text/plain")
            told[shape] = await response.text()
    assert told["json"] == '{"text": "heard 10 bytes"}'
    assert told["text"] == "heard 10 bytes"
    assert '"language": "de"' in told["verbose_json"]
    assert told["srt"].startswith("1\n00:00:00,000 --> 00:00:01,000\nheard 10 bytes")
    assert told["vtt"].startswith("WEBVTT\n\n")
    seen = engine.record.requests[0]
    assert (seen.model, seen.ending, seen.body["file"]["bytes"]) == ("fake-model", "finished", 10)


# Tokens


@pytest.mark.parametrize("flavour", [Flavour.VLLM, Flavour.LLAMA_CPP])
async def test_a_prompt_has_the_tokens_that_usage_counts(session: aiohttp.ClientSession, flavour: Flavour) -> None:
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "one two two"}]
    async with FakeEngine(flavour=flavour, pace=Pace(1e6, 0, 1)) as engine:
        if flavour is Flavour.VLLM:
            _, told = await post(session, engine, "/tokenize", MODEL | {"messages": chat})
            _, answered = await post(session, engine, "/v1/chat/completions", MODEL | {"messages": chat})
            assert told["count"] == answered["usage"]["prompt_tokens"] == len(told["tokens"])
            assert told["max_model_len"] == 4096
            _, told = await post(session, engine, "/tokenize", MODEL | {"prompt": "one two two"})
        else:
            _, templated = await post(session, engine, "/apply-template", {"messages": chat})
            assert templated == {"prompt": "be brief\none two two"}
            _, told = await post(session, engine, "/tokenize", {"content": "one two two"})
        one, two, again = told["tokens"]
    assert one != two == again


# Work like any other


@pytest.mark.parametrize(
    ("flavour", "there", "missing"),
    [
        (Flavour.VLLM, ["/rerank", "/v1/moderations", "/tokenize"], ["/apply-template", "/api/embed"]),
        (Flavour.LLAMA_CPP, ["/rerank", "/v1/images/generations", "/tokenize", "/apply-template"], ["/api/embed"]),
        (
            Flavour.OLLAMA,
            ["/v1/embeddings", "/api/embed"],
            ["/rerank", "/v1/score", "/v1/moderations", "/v1/images/edits", "/v1/audio/speech", "/tokenize"],
        ),
    ],
)
async def test_a_flavour_serves_the_pages_of_its_engine(
    session: aiohttp.ClientSession, flavour: Flavour, there: list[str], missing: list[str]
) -> None:
    body = MODEL | {"query": "a", "documents": ["a"], "input": "a", "prompt": "a", "content": "a", "messages": []}
    async with FakeEngine(flavour=flavour, pace=Pace(ttft_s=0)) as engine:
        statuses = {path: (await post(session, engine, path, body))[0] for path in (*there, *missing)}
    assert statuses == dict.fromkeys(there, 200) | dict.fromkeys(missing, 404)


async def test_an_errand_waits_for_a_slot_and_is_recorded_and_takes_faults(
    engine: FakeEngine, session: aiohttp.ClientSession, control: EngineControl
) -> None:
    body = MODEL | {"input": "hello", "query": "a", "documents": ["a"], "fake": {"ttft_s": 0.1}}
    paths = ["/v1/rerank", "/v1/moderations", "/v1/audio/speech"]

    async def ask(path: str) -> int:
        async with session.post(engine.url + path, json=body) as response:
            await response.read()
            return response.status

    assert await asyncio.gather(*(ask(path) for path in paths)) == [200, 200, 200]
    assert (engine.slots.peak_running, engine.slots.peak_width) == (2, 3)
    assert {seen.ending for seen in engine.record.requests} == {"finished"}
    await control.inject("status", status=503)
    assert [await ask("/v1/rerank") for _ in range(2)] == [503, 200]
    await control.inject("cut_after", chunks=2)
    with pytest.raises(aiohttp.ClientError):
        await ask("/v1/audio/speech")
    assert engine.record.requests[-1].ending == "broken"
    assert engine.slots.running == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rerank", {"query": "a"}),
        ("/v1/rerank", {"query": "a", "documents": [{"title": "b"}]}),
        ("/v1/score", {"text_1": ["a", "b"], "text_2": ["a"]}),
        ("/v1/moderations", {}),
        ("/v1/images/generations", {"n": 1}),
        ("/v1/images/edits", {"prompt": "no picture"}),
        ("/v1/audio/speech", {"voice": "alto"}),
        ("/v1/audio/transcriptions", {"language": "de"}),
        ("/tokenize", {}),
        ("/apply-template", {"messages": "hello"}),
    ],
)
async def test_an_errand_that_lacks_something_is_a_bad_request(
    engine: FakeEngine, session: aiohttp.ClientSession, path: str, body: dict[str, Any]
) -> None:
    status, told = await post(session, engine, path, MODEL | body)
    assert (status, told["error"]["type"]) == (400, "invalid_request_error")


async def test_an_unknown_model_has_no_errands(engine: FakeEngine, session: aiohttp.ClientSession) -> None:
    for path in ("/v1/rerank", "/v1/moderations"):
        assert (await post(session, engine, path, {"model": "nobody", "input": "a"}))[0] == 404


@pytest.mark.parametrize("raw", [b"--x\r\nno header\r\n", b"nothing", b""])
async def test_a_form_that_is_broken_is_a_bad_request(
    engine: FakeEngine, session: aiohttp.ClientSession, raw: bytes
) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    url = engine.url + "/v1/audio/transcriptions"
    async with session.post(url, data=raw, headers=headers) as response:
        assert response.status == 400
