"""Answers that must be JSON: who is believed, what becomes of an answer that is not what was asked for, in each dialect."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from forebay.wire.v1 import admin_pb2, types_pb2
from forebay_gateway.canonical.structured import (
    Answer,
    Gathered,
    Mending,
    WantedForm,
    answers_in,
    unfenced,
    wanted_form,
)
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.fleet import Backend
from forebay_gateway.rules.model_rules import Structured
from forebay_gateway.rules.structured_way import way_with
from tests.compatibility.matrix import house_before
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_flavours import Flavour, Traits
from tests.fakes.engine_orders import Pace
from tests.fakes.provider_anthropic import FakeAnthropic
from tests.gateway.house import MODEL, OUTCOME, House, eventually, open_house

Json = dict[str, Any]
OPENAI, VLLM, LLAMA = types_pb2.ENGINE_KIND_OPENAI, types_pb2.ENGINE_KIND_VLLM, types_pb2.ENGINE_KIND_LLAMACPP
OLLAMA = types_pb2.ENGINE_KIND_OLLAMA
TRUST, CHECK = admin_pb2.STRUCTURED_OUTPUT_TRUST, admin_pb2.STRUCTURED_OUTPUT_CHECK
ASK_AGAIN = admin_pb2.STRUCTURED_OUTPUT_ASK_AGAIN
QUICK = Pace(tokens_per_s=1e6, ttft_s=0, answer_tokens=5)
CITY: Json = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
KEPT = {"city": "text", "days": 1}
FORM: Json = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}}


# --- what is wanted --------------------------------------------------------------------------------------------------

SCHEMA = WantedForm(json.dumps({"type": "object"}, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        (None, None),
        ("json", None),
        ({"type": "text"}, None),
        ({"type": "grammar", "grammar": "x"}, None),
        ({"type": "json_object"}, WantedForm()),
        ({"type": "json_object", "schema": {"type": "object"}}, SCHEMA),
        ({"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}, SCHEMA),
        ({"type": "json_schema", "json_schema": {"schema": {"type": "object"}, "strict": False}}, WantedForm()),
        ({"type": "json_schema", "json_schema": {}}, None),
        ({"type": "json_schema", "json_schema": "x"}, None),
        ({"type": "json_schema"}, None),
    ],
)
def test_what_a_request_wants(form: Any, wanted: WantedForm | None) -> None:
    assert wanted_form({"response_format": form}) == wanted
    assert wanted_form({}) is None


def test_json_of_any_kind_is_json() -> None:
    wanted = WantedForm()
    assert [str(wanted.fault_in(text) or "") for text in ('{"a": 1}', " [1] ", "3")] == ["", "", ""]
    assert str(wanted.fault_in("  ")) == "it is empty"
    assert str(wanted.fault_in("Sure! {}")).startswith("it is not JSON: ")


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ("  ```\n[1]\n```  \n", "[1]"),
        ("```json\n{}\n``` and ```\n{}\n```", None),
        ("Here:\n```json\n{}\n```", None),
        ('{"a": "```"}', None),
        ("``````", None),
        ("```" + " " * 100_000, None),
    ],
)
def test_the_inside_of_one_fence(text: str, inside: str | None) -> None:
    assert unfenced(text) == (text if inside is None else inside)


def choice(content: Any, finish: str = "stop", **message: Any) -> Json:
    return {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}


@pytest.mark.parametrize(
    ("told", "answer"),
    [
        (choice("x"), Answer("x")),
        (choice(None), Answer("")),
        (choice("x", "length"), Answer("x", False)),
        (choice("", tool_calls=[{"id": "1"}]), Answer("", False)),
        (choice(None, refusal="no"), Answer("", False)),
        ({"text": "x", "finish_reason": "stop"}, Answer("x")),
        (3, Answer("")),
    ],
)
def test_what_was_cut_off_refused_or_called_is_no_answer_to_be_judged(told: Any, answer: Answer) -> None:
    assert answers_in({"choices": [told]}) == [answer]


def test_a_stream_is_gathered_by_choice_and_a_very_long_one_is_not() -> None:
    gathered = Gathered()
    for index, text, finish in ((1, "b", None), (0, "a", None), (1, "B", "length"), (0, "A", "stop")):
        gathered.take_choices([{"index": index, "delta": {"content": text}, "finish_reason": finish}])
    assert gathered.answers() == [Answer("aA"), Answer("bB", False)]
    for _ in range(5):
        gathered.take(0, "x" * (1 << 20))
    assert gathered.answers() == []


def test_nothing_to_mend_is_the_same_object() -> None:
    told = {"choices": [choice("x")]}
    assert Mending().mend(told) is told


@pytest.mark.parametrize(
    ("kind", "url", "wanted", "way"),
    [
        (EngineKind.VLLM, "http://x", SCHEMA, Structured.TRUST),
        (EngineKind.LLAMACPP, "http://x", WantedForm(), Structured.TRUST),
        (EngineKind.OPENAI, "http://x", SCHEMA, Structured.CHECK),
        (EngineKind.OPENAI, "https://api.openai.com", SCHEMA, Structured.TRUST),
        (EngineKind.OPENAI, "https://api.openai.com.example", SCHEMA, Structured.CHECK),
        (EngineKind.OPENROUTER, "https://openrouter.ai/api", SCHEMA, Structured.CHECK),
        (EngineKind.ANTHROPIC, "http://x", SCHEMA, Structured.TRUST),
        (EngineKind.ANTHROPIC, "http://x", WantedForm(), Structured.CHECK),
        (EngineKind.GEMINI, "http://x", WantedForm(), Structured.TRUST),
    ],
)
def test_who_writes_by_a_grammar_is_trusted(kind: EngineKind, url: str, wanted: WantedForm, way: Structured) -> None:
    backend = Backend("b", "b", url, kind)
    assert way_with(None, backend, wanted) is way
    assert way_with(Structured.ASK_AGAIN, backend, wanted) is Structured.ASK_AGAIN


# --- through a gateway -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_held(
    directory: Path,
    way: admin_pb2.StructuredOutput.ValueType | None = None,
    *,
    kind: types_pb2.EngineKind.ValueType = OPENAI,
    flavour: Flavour = Flavour.ANY,
    traits: Traits | None = None,
) -> AsyncIterator[tuple[House, FakeEngine]]:
    engine = FakeEngine(flavour=flavour, traits=traits, pace=QUICK)
    async with open_house(directory, engine) as house:
        await known_as(house, engine, kind, way)
        yield house, engine


_changes = itertools.count()


async def known_as(
    house: House,
    engine: FakeEngine,
    kind: types_pb2.EngineKind.ValueType,
    way: admin_pb2.StructuredOutput.ValueType | None,
) -> None:
    """And the gateway has heard it."""
    sign, heard = (
        f"sign-{next(_changes)}",
        f"heard-{next(_changes)}",
    )  # not there before, or nothing would be waited for
    await house.put("b1", engine.url, kind=kind, models=(MODEL, sign))
    scope = admin_pb2.ModelRuleScope(everyone=True)
    rules = [] if way is None else [admin_pb2.ModelRule(scope=scope, structured=way)]
    house.admin.rule(rules, [admin_pb2.ModelAlias(alias=heard, model=MODEL)])
    for name in (sign, heard):
        while True:
            async with house.client.get(f"{house.url}/v1/models/{name}", headers=house.headers) as answer:
                if answer.status == 200:
                    break


def ask(text: str, **fields: Any) -> Json:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "response_format": FORM, **fields}


async def told(house: House, body: Json, path: str = "/v1/chat/completions") -> tuple[int, Json]:
    async with house.client.post(f"{house.url}{path}", json=body, headers=house.headers) as answer:
        return answer.status, await answer.json()


async def hear(stream: AsyncIterator[Any], heard: list[Any]) -> None:
    async for piece in stream:
        heard.append(piece)


@asynccontextmanager
async def ollama_client(house: House) -> AsyncIterator[ollama.AsyncClient]:
    client = ollama.AsyncClient(host=house.url, headers=house.headers)
    try:
        yield client
    finally:
        await client.close()  # type: ignore[no-untyped-call]


def content(answer: Json, place: int = 0) -> Any:
    return json.loads(answer["choices"][place]["message"]["content"])


async def test_an_unknown_server_is_checked_and_says_where_its_answer_broke(tmp_path: Path) -> None:
    async with open_held(tmp_path) as (house, engine):
        async with house.post(ask("answer wrongly")) as answer:
            error = (await answer.json())["error"]
        assert (answer.status, answer.headers["x-forebay-reason"]) == (502, "output_invalid")
        assert answer.headers["x-should-retry"] == "false"
        assert (error["type"], error["code"]) == ("server_error", "output_invalid")
        assert error["message"].startswith("The model's answer is not the JSON schema that was asked for: ")
        assert "'city' is a required property" in error["message"] or "'wrong' is not among" in error["message"]
        status, whole = await told(house, ask("well"))
        assert (status, content(whole)) == (200, KEPT)
        assert len(engine.record.requests) == 2
        bad, good = await house.rows(2)
        assert (OUTCOME(bad.outcome), bad.reason, bad.attempts) == ("OUTCOME_FAILED", "output_invalid", 1)
        assert bad.usage.completion_tokens > 0
        assert (OUTCOME(good.outcome), good.reason) == ("OUTCOME_FINISHED", "")
        assert house.metric('forebay_gateway_structured_answers_total{result="broken"}') == 1
        assert house.metric('forebay_gateway_structured_answers_total{result="kept"}') == 1


@pytest.mark.parametrize(("kind", "way"), [(VLLM, None), (OPENAI, TRUST)])
async def test_who_is_trusted_is_not_looked_at(
    tmp_path: Path, kind: types_pb2.EngineKind.ValueType, way: admin_pb2.StructuredOutput.ValueType | None
) -> None:
    async with open_held(tmp_path, way, kind=kind) as (house, _):
        status, whole = await told(house, ask("answer wrongly"))
        assert (status, content(whole)) == (200, {"wrong": True})
        assert house.metric('forebay_gateway_structured_answers_total{result="kept"}') == 0


async def test_what_is_no_json_breaks_json_mode_and_what_was_cut_off_passes(tmp_path: Path) -> None:
    async with open_held(tmp_path) as (house, _):
        status, error = await told(house, ask("answer in prose", response_format={"type": "json_object"}))
        assert status == 502
        assert "not the JSON that was asked for: it is not JSON" in error["error"]["message"]
        status, whole = await told(house, ask("well", max_tokens=2))
        assert (status, whole["choices"][0]["finish_reason"]) == (200, "length")
        status, called = await told(
            house, ask("use the tool", tools=[{"type": "function", "function": {"name": "clock"}}])
        )
        assert (status, called["choices"][0]["finish_reason"]) == (200, "tool_calls")


async def test_an_invalid_schema_is_refused_before_anyone_is_asked_and_only_where_someone_would_judge_by_it(
    tmp_path: Path,
) -> None:
    bad = {"type": "object", "properties": {"a": {"type": "strin"}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": bad}}
    async with open_held(tmp_path) as (house, engine):
        status, refused = await told(house, ask("well", response_format=form))
        assert status == 400
        assert refused["error"]["param"] == "response_format.json_schema.schema.properties.a.type"
        assert refused["error"]["code"] == "invalid_json_schema"
        assert "At `properties.a.type`: 'strin' is not valid" in refused["error"]["message"]
        text: Json = {"format": {"type": "json_schema", "name": "x", "schema": bad}}
        status, refused = await told(house, {"model": MODEL, "input": "x", "text": text}, "/v1/responses")
        assert (status, refused["error"]["param"]) == (400, "text.format.schema.properties.a.type")
        status, refused = await told(
            house, {"model": MODEL, "messages": ask("x")["messages"], "format": bad}, "/api/chat"
        )
        assert status == 400
        assert "The schema in `format` cannot be used. At `properties.a.type`" in refused["error"]
        output: Json = {"format": {"type": "json_schema", "schema": bad}}
        status, refused = await told(
            house,
            {"model": MODEL, "max_tokens": 9, "messages": ask("x")["messages"], "output_config": output},
            "/v1/messages",
        )
        assert (status, refused["error"]["type"]) == (400, "invalid_request_error")
        assert "`output_config.format.schema`" in refused["error"]["message"]
        large = {**bad, "properties": {f"p{number}": {"type": "string"} for number in range(100)}, "required": 3}
        form["json_schema"] = {"name": "x", "schema": large}
        status, refused = await told(house, ask("well", response_format=form))
        assert (status, refused["error"]["param"]) == (400, "response_format.json_schema.schema.required")
        assert not engine.record.requests
        await known_as(house, engine, VLLM, TRUST)
        await told(house, ask("well", response_format={"type": "json_schema", "json_schema": {"schema": bad}}))
        assert len(engine.record.requests) == 1, "the engine judges it itself"


# --- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [None, ASK_AGAIN])
async def test_a_stream_is_checked_at_its_end_and_ends_with_an_error_instead(
    tmp_path: Path, way: admin_pb2.StructuredOutput.ValueType | None
) -> None:
    async with open_held(tmp_path, way) as (house, engine):
        async with AsyncOpenAI(base_url=f"{house.url}/v1", api_key=str(house.key), max_retries=0) as client:
            heard: list[Any] = []
            stream: Any = await client.chat.completions.create(**ask("answer wrongly", stream=True))
            with pytest.raises(openai.APIError, match="is not the JSON schema that was asked for"):
                await hear(stream, heard)
            said = "".join(chunk.choices[0].delta.content or "" for chunk in heard)
            finishes = [chunk.choices[0].finish_reason for chunk in heard if chunk.choices[0].finish_reason]
            assert (said, finishes) == ('{"wrong": true}', []), "all that was said, and no clean end"
            stream = await client.chat.completions.create(
                **ask("well", stream=True, stream_options={"include_usage": True})
            )
            chunks: list[Any] = []
            await hear(stream, chunks)
        assert json.loads("".join(c.choices[0].delta.content or "" for c in chunks if c.choices)) == KEPT
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        assert chunks[-1].usage.completion_tokens > 0
        assert len(engine.record.requests) == 2, "a stream is never asked again"
        bad, _ = await house.rows(2)
        assert (OUTCOME(bad.outcome), bad.reason, bad.http_status) == ("OUTCOME_FAILED", "output_invalid", 200)
        assert bad.usage.completion_tokens > 0


async def test_the_first_token_of_a_checked_stream_is_not_held_back(tmp_path: Path) -> None:
    async with open_held(tmp_path) as (house, engine):
        engine.faults.add(Fault(FaultKind.STALL_AFTER, chunks=2, seconds=30))
        async with house.post(ask("well", stream=True)) as answer:
            seen = b""
            while b"content" not in seen or seen.count(b"data: ") < 2:
                seen += await answer.content.readany()
        assert b"[DONE]" not in seen


async def test_streams_in_the_other_dialects_end_with_their_own_errors(tmp_path: Path) -> None:
    async with open_held(tmp_path) as (house, _):
        messages = ask("answer wrongly")["messages"]
        async with AsyncAnthropic(base_url=house.url, api_key=str(house.key), max_retries=0) as client:
            output: Any = {"format": {"type": "json_schema", "schema": CITY}}
            heard: list[Any] = []
            stream: Any = await client.messages.create(
                model=MODEL, max_tokens=50, messages=messages, output_config=output, stream=True
            )
            with pytest.raises(anthropic.APIError, match="is not the JSON schema"):
                await hear(stream, heard)
            assert {"message_start", "content_block_delta"} <= {event.type for event in heard}
            assert "message_stop" not in {event.type for event in heard}
        async with AsyncOpenAI(base_url=f"{house.url}/v1", api_key=str(house.key), max_retries=0) as openais:
            text: Any = {"format": {"type": "json_schema", "name": "x", "schema": CITY}}
            heard = []
            stream = await openais.responses.create(model=MODEL, input="answer wrongly", text=text, stream=True)
            with pytest.raises(openai.APIError, match="is not the JSON schema"):
                await hear(stream, heard)
            assert "response.output_text.delta" in {event.type for event in heard}
            assert "response.completed" not in {event.type for event in heard}
        async with ollama_client(house) as ollamas:
            heard = []
            stream = await ollamas.chat(model=MODEL, messages=messages, format=CITY, stream=True)
            with pytest.raises(ollama.ResponseError, match="is not the JSON schema"):
                await hear(stream, heard)
            assert heard
            assert not any(part.done for part in heard)
        assert {row.reason for row in await house.rows(3)} == {"output_invalid"}


# --- asking again ----------------------------------------------------------------------------------------------------


async def test_a_bad_answer_is_asked_for_again_with_its_fault_and_all_of_it_is_counted_once(tmp_path: Path) -> None:
    async with open_held(tmp_path, ASK_AGAIN) as (house, engine):
        async with house.post(ask("answer wrongly twice", seed=7)) as answer:
            whole = await answer.json()
        assert (answer.status, content(whole)) == (200, KEPT)
        assert (answer.headers["x-forebay-attempts"], len(whole["choices"])) == ("1", 1)
        first, second, third = [request.body for request in engine.record.requests]
        assert (first["messages"], first["seed"], third["seed"]) == (ask("answer wrongly twice")["messages"], 7, 7)
        assert second["messages"][1] == {"role": "assistant", "content": '{"wrong": true}'}
        remark = third["messages"][-1]
        assert (remark["role"], len(third["messages"])) == ("user", 5)
        assert "This answer cannot be used: " in remark["content"]
        assert json.dumps(CITY, separators=(",", ":")) in remark["content"]
        (row,) = await house.rows(1)
        used = whole["usage"]
        assert (row.usage.prompt_tokens, row.usage.completion_tokens) == (
            used["prompt_tokens"],
            used["completion_tokens"],
        )
        assert used["total_tokens"] == used["prompt_tokens"] + used["completion_tokens"]
        assert row.usage.completion_tokens == engine.record.totals["completion_tokens"]
        assert row.usage.prompt_tokens == engine.record.totals["prompt_tokens"]
        assert (OUTCOME(row.outcome), row.attempts) == ("OUTCOME_FINISHED", 1)
        assert house.metric('forebay_gateway_structured_answers_total{result="asked_again"}') == 2
        (settle,) = house.scheduler.settles
        assert settle.usage.completion_tokens == used["completion_tokens"]


async def test_after_three_tries_it_is_refused_and_paid_for(tmp_path: Path) -> None:
    async with open_held(tmp_path, ASK_AGAIN) as (house, engine):
        status, error = await told(house, ask("answer wrongly always"))
        assert status == 502
        assert "is not the JSON schema that was asked for, in 3 tries: " in error["error"]["message"]
        assert len(engine.record.requests) == 3
        (row,) = await house.rows(1)
        assert (row.reason, row.usage.completion_tokens) == (
            *("output_invalid", engine.record.totals["completion_tokens"]),
        )


async def test_an_answer_in_a_fence_is_taken_out_of_it(tmp_path: Path) -> None:
    async with open_held(tmp_path, ASK_AGAIN) as (house, engine):
        status, whole = await told(house, ask("answer fenced"))
        assert (status, content(whole), len(engine.record.requests)) == (200, KEPT, 1)


async def test_each_of_several_choices_is_held_to_it(tmp_path: Path) -> None:
    async with open_held(tmp_path, ASK_AGAIN) as (house, engine):
        status, whole = await told(house, ask("answer wrongly", n=2))
        assert status == 200
        assert [one["index"] for one in whole["choices"]] == [0, 1]
        assert [content(whole, place) for place in (0, 1)] == [KEPT, KEPT]
        assert [request.body.get("n") for request in engine.record.requests] == [2, 1, 1]
        (row,) = await house.rows(1)
        assert whole["usage"]["completion_tokens"] == row.usage.completion_tokens
        assert row.usage.completion_tokens == engine.record.totals["completion_tokens"]


async def test_an_engine_that_is_asked_for_a_stream_instead_is_asked_again_too(tmp_path: Path) -> None:
    async with open_held(tmp_path, ASK_AGAIN, kind=LLAMA, flavour=Flavour.LLAMA_CPP) as (house, engine):
        status, whole = await told(house, ask("answer wrongly"))
        assert (status, content(whole)) == (200, KEPT)
        assert [request.streamed for request in engine.record.requests] == [True, True]
        (row,) = await house.rows(1)
        assert row.usage.completion_tokens == whole["usage"]["completion_tokens"]
        assert row.usage.completion_tokens == engine.record.totals["completion_tokens"]


async def test_a_client_that_goes_meanwhile_pays_for_what_was_made(tmp_path: Path) -> None:
    async with open_held(tmp_path, ASK_AGAIN) as (house, engine):
        engine.pace = Pace(tokens_per_s=1e6, ttft_s=0.2)
        asking = asyncio.create_task(told(house, ask("answer wrongly")))
        await eventually(lambda: engine.record.requests and engine.record.requests[0].started_at)
        engine.pace = Pace(tokens_per_s=1, ttft_s=60)
        await eventually(lambda: len(engine.record.requests) == 2)
        first, second = engine.record.requests
        asking.cancel()
        await eventually(lambda: second.disconnected_at is not None)
        (row,) = await house.rows(1)
        assert OUTCOME(row.outcome) == "OUTCOME_CANCELLED"
        assert row.usage.completion_tokens == first.tokens_made
        assert row.usage.source == types_pb2.USAGE_SOURCE_ESTIMATED


async def test_a_completion_can_be_judged_and_not_be_asked_again(tmp_path: Path) -> None:
    async with open_held(tmp_path, ASK_AGAIN) as (house, engine):
        body = {"model": MODEL, "prompt": "repeat: words", "response_format": FORM}
        status, error = await told(house, body, "/v1/completions")
        assert (status, error["error"]["code"], len(engine.record.requests)) == (502, "output_invalid", 1)
        status, whole = await told(house, {**body, "prompt": f"repeat: {json.dumps(KEPT)}"}, "/v1/completions")
        assert (status, json.loads(whole["choices"][0]["text"])) == (200, KEPT)


async def test_when_the_engine_fails_meanwhile_another_begins_anew(tmp_path: Path) -> None:
    async with open_held(tmp_path, ASK_AGAIN) as (house, engine), FakeEngine(pace=QUICK) as other:
        await house.put("b2", other.url, kind=OPENAI)
        house.scheduler.slots["b2"] = 4
        engine.faults.add(Fault(FaultKind.MALFORMED_SSE, times=1))
        engine.pace = other.pace
        async with house.post(ask("answer wrongly")) as answer:
            assert (answer.status, content(await answer.json())) == (200, KEPT)
        (row,) = await house.rows(1)
        assert (row.backend_id, row.attempts) == ("b2", 2)
        assert row.usage.completion_tokens == other.record.totals["completion_tokens"], "of the one that failed nothing"


async def test_the_clients_of_the_other_dialects_get_the_good_answer(tmp_path: Path) -> None:
    async with open_held(tmp_path, ASK_AGAIN) as (house, engine):
        messages: Any = ask("answer wrongly")["messages"]
        async with AsyncAnthropic(base_url=house.url, api_key=str(house.key), max_retries=0) as client:
            output: Any = {"format": {"type": "json_schema", "schema": CITY}}
            message: Any = await client.messages.create(
                model=MODEL, max_tokens=50, messages=messages, output_config=output
            )
            assert json.loads(message.content[0].text) == KEPT
        async with AsyncOpenAI(base_url=f"{house.url}/v1", api_key=str(house.key), max_retries=0) as openais:
            text: Any = {"format": {"type": "json_schema", "name": "x", "schema": CITY}}
            response = await openais.responses.create(model=MODEL, input="answer wrongly", text=text)
            assert json.loads(response.output_text) == KEPT
        async with ollama_client(house) as ollamas:
            chat = await ollamas.chat(model=MODEL, messages=messages, format=CITY)
        assert json.loads(chat.message.content or "") == KEPT
        assert len(engine.record.requests) == 6
        rows = await house.rows(3)
        assert response.usage is not None
        assert [row.usage.completion_tokens for row in rows] == [
            *(message.usage.output_tokens, response.usage.output_tokens, chat.eval_count),
        ]


# --- engines that speak the client's own dialect ---------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
async def test_ollamas_own_answers_are_judged_when_that_is_demanded(tmp_path: Path, path: str) -> None:
    def body(text: str, **fields: Any) -> Json:
        asked = {"prompt": text} if path == "/api/generate" else {"messages": [{"role": "user", "content": text}]}
        return {"model": MODEL, "format": CITY, "stream": False, "options": {"num_ctx": 512}, **asked, **fields}

    def text_in(answer: Json) -> Any:
        return json.loads(answer["response"] if path == "/api/generate" else answer["message"]["content"])

    async with open_held(tmp_path, ASK_AGAIN, kind=OLLAMA, flavour=Flavour.OLLAMA) as (house, engine):
        status, whole = await told(house, body("answer wrongly"), path)
        assert (status, text_in(whole)) == (200, KEPT)
        assert [(request.path, request.body["options"]) for request in engine.record.requests] == [
            (path, {"num_ctx": 512})
        ] * 2
        (row,) = await house.rows(1)
        assert (row.usage.prompt_tokens, row.usage.completion_tokens) == (
            *(whole["prompt_eval_count"], whole["eval_count"]),
        )
        assert row.usage.completion_tokens == engine.record.totals["completion_tokens"]
        status, whole = await told(house, body("answer fenced"), path)
        assert (status, text_in(whole)) == (200, KEPT)
        async with house.client.post(
            f"{house.url}{path}", json=body("answer wrongly", stream=True), headers=house.headers
        ) as answer:
            lines = [json.loads(line) for line in (await answer.text()).splitlines()]
        assert "is not the JSON schema" in lines[-1]["error"]
        assert not any(line.get("done") for line in lines)
        await known_as(house, engine, OLLAMA, None)
        status, whole = await told(house, body("answer wrongly"), path)
        assert (status, text_in(whole)) == (200, {"wrong": True}), "it is trusted unless a rule says otherwise"


async def test_anthropics_own_answers_are_judged_when_that_is_demanded(tmp_path: Path) -> None:
    output = {"format": {"type": "json_schema", "schema": CITY}}
    kind = types_pb2.ENGINE_KIND_ANTHROPIC

    def body(text: str, **fields: Any) -> Json:
        asked = ask(text)["messages"]
        return {"model": MODEL, "max_tokens": 90, "messages": asked, "output_config": output, **fields}

    async with house_before(tmp_path, FakeAnthropic(models=(MODEL,)), kind) as (house, provider):
        await ruled(house, ASK_AGAIN)
        status, message = await told(house, body("answer wrongly"), "/v1/messages")
        assert (status, json.loads(message["content"][0]["text"])) == (200, KEPT)
        assert len(provider.asked) == 2
        (row,) = await house.rows(1)
        assert row.usage.completion_tokens == message["usage"]["output_tokens"]
        async with house.client.post(
            f"{house.url}/v1/messages", json=body("answer wrongly", stream=True), headers=house.headers
        ) as answer:
            text = await answer.text()
        assert "event: error" in text
        assert "message_stop" not in text


async def ruled(house: House, way: admin_pb2.StructuredOutput.ValueType) -> None:
    rule = admin_pb2.ModelRule(scope=admin_pb2.ModelRuleScope(everyone=True), structured=way)
    house.admin.rule([rule], [admin_pb2.ModelAlias(alias="heard", model=MODEL)])
    while True:
        async with house.client.get(f"{house.url}/v1/models/heard", headers=house.headers) as answer:
            if answer.status == 200:
                return


async def test_a_claude_that_is_asked_for_any_json_is_checked_since_it_is_asked_in_words(tmp_path: Path) -> None:
    kind = types_pb2.ENGINE_KIND_ANTHROPIC
    async with house_before(tmp_path, FakeAnthropic(models=(MODEL,)), kind) as (house, _):
        status, error = await told(house, ask("answer in prose", response_format={"type": "json_object"}))
        assert status == 502, error
        status, whole = await told(house, ask("well", response_format={"type": "json_object"}))
        assert (status, content(whole)) == (200, {"answer": "text"})


# --- engines that know no forms --------------------------------------------------------------------------------------


def formless() -> Traits:
    return Traits(refuses_forms=True)


async def test_an_engine_without_grammars_is_told_in_words_where_a_rule_allows_it(tmp_path: Path) -> None:
    async with open_held(tmp_path, ASK_AGAIN, traits=formless()) as (house, engine):
        status, whole = await told(house, ask("answer fenced"))
        assert (status, content(whole)) == (200, KEPT)
        refused, asked = [request.body for request in engine.record.requests]
        assert "response_format" in refused
        assert "response_format" not in asked
        assert asked["messages"][0]["role"] == "system"
        system = {"role": "system", "content": "Be brief."}
        body = ask("answer wrongly")
        status, whole = await told(house, {**body, "messages": [system, *body["messages"]]})
        assert (status, content(whole)) == (200, KEPT)
        (first, *others) = engine.record.requests[-1].body["messages"]
        assert first["content"].startswith("Be brief.\n\nAnswer with JSON alone")
        assert [message["role"] for message in others] == ["user", "assistant", "user"]
        async with house.post(ask("well", stream=True)) as answer:
            assert "[DONE]" in await answer.text()
        rows = await house.rows(3)
        assert {(OUTCOME(row.outcome), row.attempts) for row in rows} == {("OUTCOME_FINISHED", 1)}


async def test_elsewhere_its_refusal_passes(tmp_path: Path) -> None:
    async with open_held(tmp_path, CHECK, traits=formless()) as (house, engine):
        status, error = await told(house, ask("well"))
        assert (status, len(engine.record.requests)) == (400, 1)
        assert "response_format is not supported" in error["error"]["message"]


async def test_an_engine_that_cannot_be_asked_again_is_not_the_clients_fault(tmp_path: Path) -> None:
    engine = FakeEngine(context_tokens=40, pace=QUICK)
    async with open_house(tmp_path, engine) as house:
        await known_as(house, engine, OPENAI, ASK_AGAIN)
        status, error = await told(house, ask("answer wrongly", max_tokens=10))
        assert (status, error["error"]["code"]) == (502, "output_invalid")
        assert "It could not be asked again: " in error["error"]["message"]
        (row,) = await house.rows(1)
        assert row.usage.completion_tokens == engine.record.totals["completion_tokens"]
