"""What is no chat: ranking, judging, drawing, speaking, listening, counting; and the lists of models."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from forebay.wire.v1 import types_pb2
from forebay_gateway.callers.principals import Principal
from forebay_gateway.canonical.forms import IMAGE, MODERATION, RERANK
from forebay_gateway.dialects.openai.ranking import parse_cohere_rerank, parse_rerank, parse_score
from forebay_gateway.fleet import Backend, Fleet, ModelOnBackend
from forebay_gateway.refused import BadField
from forebay_gateway.rules.catalogue import usual_model
from forebay_gateway.rules.model_rules import ModelRules
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_flavours import Flavour
from tests.gateway.house import MODEL, OUTCOME, House, eventually, open_house
from tests.gateway.test_model_rules import open_ruled

DOCUMENTS = ["rivers and lakes", "the long river of Africa", "mountains"]


async def post(house: House, path: str, body: Any) -> tuple[int, Any]:
    async with house.client.post(f"{house.url}{path}", json=body, headers=house.headers) as answer:
        return answer.status, await answer.json()


def openai_client(house: House) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{house.url}/v1", api_key=str(house.key), max_retries=0)


async def hear(answer: aiohttp.ClientResponse, heard: bytearray) -> None:
    async for piece in answer.content.iter_any():
        heard += piece


async def test_documents_come_sorted_and_cut_and_with_their_texts_when_asked(tmp_path: Path) -> None:
    engine = FakeEngine(flavour=Flavour.VLLM)
    async with open_house(tmp_path, engine) as house:
        asked = {"model": MODEL, "query": "long river", "documents": [*DOCUMENTS[:2], {"text": DOCUMENTS[2]}]}
        status, told = await post(house, "/v1/rerank", {**asked, "top_n": 2})
        assert status == 200
        assert [result["index"] for result in told["results"]] == [1, 0]
        assert told["results"][0]["document"] == {"text": DOCUMENTS[1]}
        _, bare = await post(house, "/v1/rerank", {**asked, "return_documents": False})
        assert all("document" not in result for result in bare["results"])
        _, cohere = await post(house, "/v2/rerank", asked)
        assert set(cohere) == {"id", "results", "meta"}
        assert set(cohere["results"][0]) == {"index", "relevance_score"}
        rows = await house.rows(3)
        assert [row.route for row in rows] == ["/v1/rerank", "/v1/rerank", "/v2/rerank"]
        assert all(row.usage.prompt_tokens > 0 and row.usage.source == types_pb2.USAGE_SOURCE_ENGINE for row in rows)


async def test_scores_judgements_and_pictures_pass(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(flavour=Flavour.VLLM)) as house, openai_client(house) as client:
        status, told = await post(house, "/v1/score", {"model": MODEL, "text_1": "a b", "text_2": ["a b", "c"]})
        assert status == 200
        assert told["data"][0]["score"] > told["data"][1]["score"]
        judged = await client.moderations.create(model=MODEL, input=["good", "bad"])
        assert [result.flagged for result in judged.results] == [False, True]
        drawn = await client.images.generate(model=MODEL, prompt="a river", n=2)
        assert len(drawn.data or []) == 2
        picture = ("river.png", io.BytesIO(b"\x89PNG"), "image/png")
        changed = await client.images.edit(model=MODEL, image=picture, prompt="a bridge")
        assert len(changed.data or []) == 1
        rows = await house.rows(4)
        assert [(row.width, row.images) for row in rows] == [(1, 0), (1, 0), (2, 2), (1, 1)]
        assert [row.HasField("images") for row in rows] == [False, False, True, True]


async def test_a_model_that_openai_does_not_demand_is_openais_usual_one(tmp_path: Path) -> None:
    async with open_ruled(tmp_path, flavour=Flavour.VLLM, aliases=("omni-moderation-latest", "gpt-image-1")) as (
        house,
        engine,
    ):
        async with openai_client(house) as client:
            assert (await client.moderations.create(input="bad")).results[0].flagged
            assert len((await client.images.generate(prompt="a river")).data or []) == 1
            picture = ("river.png", io.BytesIO(b"\x89PNG"), "image/png")
            assert len((await client.images.edit(image=picture, prompt="a bridge")).data or []) == 1
        assert [seen.body["model"] for seen in engine.record.requests] == [MODEL] * 3
        told = [(row.model_requested, row.model) for row in await house.rows(3)]
        assert told == [("omni-moderation-latest", MODEL), *[("gpt-image-1", MODEL)] * 2]


async def test_where_there_is_no_usual_model_the_client_hears_what_to_do(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(flavour=Flavour.VLLM)) as house:
        for path, body in (("/v1/moderations", {"input": "bad"}), ("/v1/images/generations", {"prompt": "a river"})):
            status, told = await post(house, path, body)
            assert (status, told["error"]["param"]) == (400, "model")
            assert told["error"]["code"] == "missing_required_parameter"
            assert "make an alias" in told["error"]["message"]


def test_the_only_model_that_is_known_to_draw_draws() -> None:
    fleet, rules, caller = Fleet(), ModelRules(), Principal("k", "u")
    models = {name: ModelOnBackend(name, capabilities=("image",)) for name in ("painter", "sketcher")}
    models["talker"] = ModelOnBackend("talker", capabilities=("completion",))
    fleet.replace_all([Backend("b1", "one", "http://one", models=models)])
    only = Principal("k", "u", allowed_models=frozenset({"painter", "talker"}))
    assert usual_model(only, IMAGE, fleet, rules) == "painter"
    for principal, form in ((caller, IMAGE), (only, MODERATION), (only, RERANK)):
        with pytest.raises(BadField, match="`model` is missing"):
            usual_model(principal, form, fleet, rules)


async def test_sound_passes_byte_by_byte_and_recordings_are_heard(tmp_path: Path) -> None:
    engine = FakeEngine(flavour=Flavour.VLLM)
    async with open_house(tmp_path, engine) as house, openai_client(house) as client:
        spoken = await client.audio.speech.create(model=MODEL, voice="alloy", input="Hello.")
        sound = spoken.read()
        assert sound[:4] == b"RIFF"
        recording = ("hello.wav", io.BytesIO(b"\0" * 300_000), "audio/wav")
        heard = await client.audio.transcriptions.create(model=MODEL, file=recording, language="en")
        assert "300000" in heard.text
        form = aiohttp.FormData({"model": MODEL, "response_format": "srt"})
        form.add_field("file", b"12", filename="x.wav", content_type="audio/wav")
        address = f"{house.url}/v1/audio/translations"
        async with house.client.post(address, data=form, headers=house.headers) as answer:
            assert answer.content_type == "text/plain"
            assert "00:00:00" in await answer.text()
        rows = await house.rows(3)
        assert {OUTCOME(row.outcome) for row in rows} == {"OUTCOME_FINISHED"}
        assert engine.record.requests[1].body["language"] == "en"


async def test_sound_that_breaks_off_is_cut_off_and_no_text_is_put_into_it(tmp_path: Path) -> None:
    engine = FakeEngine(flavour=Flavour.VLLM)
    async with open_house(tmp_path, engine) as house:
        engine.faults.add(Fault(FaultKind.CUT_AFTER, chunks=2))
        body = {"model": MODEL, "input": "Hello.", "voice": "alloy"}
        heard = bytearray()
        async with house.client.post(f"{house.url}/v1/audio/speech", json=body, headers=house.headers) as answer:
            assert answer.status == 200
            with pytest.raises(aiohttp.ClientError):
                await hear(answer, heard)
        assert heard
        assert b"error" not in heard
        (row,) = await house.rows(1)
        assert OUTCOME(row.outcome) == "OUTCOME_FAILED"


async def test_a_recording_goes_to_another_engine_when_the_first_one_fails(tmp_path: Path) -> None:
    first, second = FakeEngine(flavour=Flavour.VLLM), FakeEngine(flavour=Flavour.VLLM)
    async with open_house(tmp_path, first, second) as house, openai_client(house) as client:
        first.faults.add(Fault(FaultKind.STATUS, status=500))
        recording = ("hello.wav", io.BytesIO(b"\0" * 100_000), "audio/wav")
        heard = await client.audio.transcriptions.create(model=MODEL, file=recording)
        assert "100000" in heard.text
        (row,) = await house.rows(1)
        assert row.attempts == 2


async def test_a_form_that_is_cut_off_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "uploads").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "uploads"))
    async with open_house(tmp_path, FakeEngine(flavour=Flavour.VLLM)) as house:
        _, writer = await asyncio.open_connection("127.0.0.1", int(house.url.rpartition(":")[2]))
        part = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + b"\0" * 100_000
        head = (
            f"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {house.key}\r\n"
            f"content-type: multipart/form-data; boundary=x\r\ncontent-length: 900000\r\n\r\n"
        )
        writer.write(head.encode() + part)
        await writer.drain()
        await eventually(lambda: any((tmp_path / "uploads").iterdir()))
        writer.close()
        await eventually(lambda: not any((tmp_path / "uploads").iterdir()))
        (row,) = await house.rows(1)
        assert OUTCOME(row.outcome) in ("OUTCOME_CANCELLED", "OUTCOME_REFUSED")


@pytest.mark.parametrize("flavour", [Flavour.VLLM, Flavour.LLAMA_CPP])
async def test_tokens_are_counted_by_the_engine_and_are_those_it_charges(tmp_path: Path, flavour: Flavour) -> None:
    async with open_house(tmp_path, FakeEngine(flavour=flavour)) as house:
        chat = {"model": MODEL, "messages": [{"role": "user", "content": "one two three"}]}
        status, told = await post(house, "/v1/tokenize", chat)
        assert status == 200
        assert told["is_estimate"] is False
        assert told["max_model_len"] == 4096
        assert len(told["tokens"]) == told["count"]
        async with AsyncAnthropic(base_url=house.url, api_key=str(house.key), max_retries=0) as client:
            counted = await client.messages.count_tokens(**chat)  # type: ignore[arg-type]
        assert counted.input_tokens == told["count"]
        await house.rows(0, wait_s=0.1)


async def test_an_engine_that_cannot_count_makes_it_an_estimate_that_says_so(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(flavour=Flavour.OLLAMA)) as house:
        await house.put("b1", house.engine_url, kind=types_pb2.ENGINE_KIND_OLLAMA)
        status, told = await post(house, "/v1/tokenize", {"model": MODEL, "prompt": "one two three"})
        assert status == 200
        assert told["is_estimate"] is True
        assert told["count"] > 0


async def test_models_are_listed_in_the_shape_of_whoever_asks_with_what_they_can(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine()) as house:
        await house.put("b1", house.engine_url, capabilities=("chat", "vision"))
        async with openai_client(house) as client:
            await eventually_async(client, lambda model: (model.model_extra or {}).get("capabilities"))
            model = await client.models.retrieve(MODEL)
            assert (model.model_extra or {})["capabilities"] == ["chat", "vision"]
        for base in (house.url, f"{house.url}/anthropic"):
            async with AsyncAnthropic(base_url=base, api_key=str(house.key), max_retries=0) as anthropic:
                (listed,) = [model async for model in anthropic.models.list()]
                assert (listed.id, listed.type) == (MODEL, "model")
                assert (await anthropic.models.retrieve(MODEL)).id == MODEL


async def eventually_async(client: AsyncOpenAI, is_so: Any) -> None:
    for _ in range(200):
        if is_so(await client.models.retrieve(MODEL)):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came about")


async def test_a_model_may_be_named_with_the_tag_latest_or_without(tmp_path: Path) -> None:
    engine = FakeEngine(models=("tagged:latest", MODEL))
    async with open_house(tmp_path, engine) as house:
        await house.put("b1", engine.url, models=("tagged:latest", MODEL))
        for name in ("tagged", f"{MODEL}:latest"):
            body = {"model": name, "messages": [{"role": "user", "content": "repeat: yes"}]}
            async with house.post(body) as answer:
                told = await answer.json()
                assert (answer.status, told["model"]) == (200, name)
                assert answer.headers["x-forebay-model"] in ("tagged:latest", MODEL)
        rows = await house.rows(2)
        assert [(row.model_requested, row.model) for row in rows] == [
            ("tagged", "tagged:latest"),
            (f"{MODEL}:latest", MODEL),
        ]


@pytest.mark.parametrize(
    ("parse", "changes", "param"),
    [
        (parse_rerank, {"query": 3}, "query"),
        (parse_rerank, {"documents": "a"}, "documents"),
        (parse_rerank, {"documents": []}, "documents"),
        (parse_rerank, {"documents": ["a", 3]}, "documents[1]"),
        (parse_rerank, {"documents": ["a"] * 2049}, "documents"),
        (parse_rerank, {"top_n": 0}, "top_n"),
        (parse_rerank, {"return_documents": "yes"}, "return_documents"),
        (parse_cohere_rerank, {"model": None}, "model"),
        (parse_score, {"text_1": []}, "text_1"),
        (parse_score, {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, "text_1"),
    ],
)
def test_a_bad_field_of_a_ranking_is_named(parse: Any, changes: dict[str, Any], param: str) -> None:
    usual = {"model": "m", "query": "q", "documents": ["a"], "text_1": "a", "text_2": "b"}
    with pytest.raises(BadField) as refused:
        parse(json.dumps({**usual, **changes}).encode())
    assert refused.value.param == param
