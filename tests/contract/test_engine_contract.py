"""What the gateway relies on in an engine, held against the fake and against the real llama.cpp.

Where engines differ, the test reads the difference from `engine.traits`; so the fake's llama.cpp flavour is proven to
differ in the same way as the real one, and a new release that behaves better makes a test fail here first.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from itertools import pairwise

import pytest

from tests.contract.engine_under_test import EngineUnderTest
from tests.fakes.engine_flavours import Logprobs, Prompts

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
FREED_WITHIN_S = 2.0
"""The engine's part of freeing a slot: one decoding step on a busy two-core machine. It is 50 ms on an idle one."""
PROMPT_WITHIN_S = 20.0
"""llama.cpp finishes a batch of the prompt first (up to 2048 tokens): about a second for these, more when busy."""
SURE_STOPS = ["e", "o", "a", " ", "\n"]
"""One of them is in the first tokens of any text."""


# Streams


async def test_a_stream_is_sse_data_lines_ended_by_done(engine: EngineUnderTest) -> None:
    answer = await engine.post(CHAT, engine.chat(stream=True))
    assert answer.status == 200
    assert answer.content_type.startswith("text/event-stream")
    assert {chunk["object"] for chunk in answer.chunks} == {"chat.completion.chunk"}


async def test_the_chunks_of_a_stream_arrive_one_by_one_over_time(engine: EngineUnderTest) -> None:
    request = await engine.open(CHAT, engine.chat(stream=True, max_tokens=12))
    arrivals: list[float] = []
    while (line := await request.reader.readline()) != b"data: [DONE]\n":
        assert line, "the stream ended without [DONE]"
        if b'"content":"' in line:
            arrivals.append(time.monotonic())
    await request.close()
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    assert len(arrivals) >= 9  # some tokens are half a character and wait for the next
    assert sum(gap > 0.004 for gap in gaps) >= 7


async def test_every_chunk_of_a_stream_has_the_same_id_and_model(engine: EngineUnderTest) -> None:
    chunks = (await engine.post(CHAT, engine.chat(stream=True))).chunks
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all(isinstance(chunk["created"], int) for chunk in chunks)  # llama.cpp sets it anew in each
    assert {chunk["model"] for chunk in chunks} == {engine.model}


async def test_the_first_chunk_has_the_role_and_no_text_and_the_others_have_no_role(engine: EngineUnderTest) -> None:
    first, *others = (await engine.post(CHAT, engine.chat(stream=True))).chunks
    assert first["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": engine.traits.first_content}, "finish_reason": None}
    ]
    assert all("role" not in chunk["choices"][0]["delta"] for chunk in others)


async def test_the_last_chunk_has_the_finish_reason_and_an_empty_delta(engine: EngineUnderTest) -> None:
    *others, last = (await engine.post(CHAT, engine.chat(stream=True))).chunks
    assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
    assert {chunk["choices"][0]["finish_reason"] for chunk in others} == {None}


async def test_a_stop_string_ends_a_stream_with_stop_and_is_not_sent(engine: EngineUnderTest) -> None:
    chunks = (await engine.post(CHAT, engine.chat(stream=True, max_tokens=60, stop=SURE_STOPS))).chunks
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert not any(stop in text for stop in SURE_STOPS)


async def test_a_stream_tells_no_usage_unless_asked(engine: EngineUnderTest) -> None:
    chunks = (await engine.post(CHAT, engine.chat(stream=True))).chunks
    assert all(chunk.get("usage") is None for chunk in chunks)
    assert all(chunk["choices"] for chunk in chunks)


async def test_a_stream_asked_for_usage_tells_it_in_a_last_chunk_without_choices(engine: EngineUnderTest) -> None:
    body = engine.chat(stream=True, stream_options={"include_usage": True})
    *others, last = (await engine.post(CHAT, body)).chunks
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 8
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + 8
    assert all(chunk.get("usage") is None for chunk in others)


# Plain answers


async def test_a_plain_answer_is_one_json_object_whose_usage_adds_up(engine: EngineUnderTest) -> None:
    answer = await engine.post(CHAT, engine.chat())
    assert answer.status == 200
    assert answer.content_type.startswith("application/json")
    assert answer.json["object"] == "chat.completion"
    assert answer.json["model"] == engine.model
    (choice,) = answer.json["choices"]
    assert (choice["index"], choice["finish_reason"], choice["message"]["role"]) == (0, "length", "assistant")
    assert choice["message"]["content"]
    usage = answer.json["usage"]
    assert usage["prompt_tokens"] > 0
    assert usage["completion_tokens"] == 8
    assert usage["total_tokens"] == usage["prompt_tokens"] + 8


async def test_streamed_or_not_a_prompt_costs_the_same_tokens(engine: EngineUnderTest) -> None:
    plain = (await engine.post(CHAT, engine.chat())).json["usage"]
    streamed = (await engine.post(CHAT, engine.chat(stream=True, stream_options={"include_usage": True}))).chunks
    assert streamed[-1]["usage"]["prompt_tokens"] == plain["prompt_tokens"]


async def test_a_stop_string_ends_a_plain_answer_with_stop(engine: EngineUnderTest) -> None:
    (choice,) = (await engine.post(CHAT, engine.chat(max_tokens=60, stop=SURE_STOPS))).json["choices"]
    assert choice["finish_reason"] == "stop"
    assert not any(stop in (choice["message"]["content"] or "") for stop in SURE_STOPS)


async def test_max_completion_tokens_is_the_newer_name_of_max_tokens(engine: EngineUnderTest) -> None:
    body = {name: value for name, value in engine.chat().items() if name != "max_tokens"}
    answer = await engine.post(CHAT, body | {"max_completion_tokens": 3})
    assert answer.json["usage"]["completion_tokens"] == 3


async def test_unknown_fields_are_ignored(engine: EngineUnderTest) -> None:
    answer = await engine.post(CHAT, engine.chat(user="somebody", metadata={"a": "b"}, no_such_field=[1, {"x": None}]))
    assert answer.status == 200
    assert answer.json["usage"]["completion_tokens"] == 8


# Several choices


async def test_n_choices_come_with_their_indexes_in_a_plain_answer(engine: EngineUnderTest) -> None:
    answer = (await engine.post(CHAT, engine.chat(n=2))).json
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["length", "length"]
    assert answer["usage"]["completion_tokens"] == (8 if engine.traits.usage_per_choice else 16)


async def test_n_choices_of_a_stream_each_open_and_finish(engine: EngineUnderTest) -> None:
    chunks = (await engine.post(CHAT, engine.chat(stream=True, n=2))).chunks
    choices = [chunk["choices"][0] for chunk in chunks]
    assert sorted(choice["index"] for choice in choices if "role" in choice["delta"]) == [0, 1]
    assert sorted(choice["index"] for choice in choices if choice["finish_reason"]) == [0, 1]


async def test_usage_chunks_of_n_choices_have_no_choices_and_the_last_chunk_is_one(engine: EngineUnderTest) -> None:
    body = engine.chat(stream=True, n=2, stream_options={"include_usage": True})
    chunks = (await engine.post(CHAT, body)).chunks
    usages = [chunk for chunk in chunks if chunk.get("usage")]
    assert chunks[-1] is usages[-1]
    assert all(chunk["choices"] == [] for chunk in usages)
    assert [chunk["usage"]["completion_tokens"] for chunk in usages] == (
        [8, 8] if engine.traits.usage_per_choice else [16]
    )


async def test_n_choices_take_n_slots(engine: EngineUnderTest) -> None:
    request = await engine.open(CHAT, engine.chat(stream=True, n=2, max_tokens=200))
    await request.first_chunk()
    assert await engine.busy() == 2
    await request.close()
    assert await engine.seconds_until_busy(0) < FREED_WITHIN_S


async def test_more_choices_than_slots_are_a_bad_request(engine: EngineUnderTest) -> None:
    answer = await engine.post(CHAT, engine.chat(n=3))
    assert answer.status == 400
    assert answer.json["error"]["type"] == "invalid_request_error"


async def test_a_request_for_two_slots_waits_without_a_byte_until_both_are_free(engine: EngineUnderTest) -> None:
    narrow = await engine.open(CHAT, engine.chat(stream=True, max_tokens=400))
    await narrow.first_chunk()
    wide = await engine.open(CHAT, engine.chat(stream=True, n=2, max_tokens=3))
    assert await wide.is_silent(0.5)
    assert await engine.busy() == 1
    await narrow.close()
    await asyncio.wait_for(wide.first_chunk(), 10)
    await wide.close()


# Text completions


async def test_a_plain_completion_has_text_and_usage(engine: EngineUnderTest) -> None:
    body = {"model": engine.model, "prompt": "Once upon a time", "max_tokens": 4, "ignore_eos": True}
    answer = (await engine.post(COMPLETIONS, body)).json
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"]
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 4


async def test_a_streamed_completion_tells_usage_in_its_last_chunk(engine: EngineUnderTest) -> None:
    body = {"model": engine.model, "prompt": "Once upon a time", "max_tokens": 4, "ignore_eos": True, "stream": True}
    *others, last = (await engine.post(COMPLETIONS, body | {"stream_options": {"include_usage": True}})).chunks
    assert {chunk["object"] for chunk in others} == {"text_completion"}
    assert "".join(chunk["choices"][0]["text"] for chunk in others)
    assert last["usage"]["completion_tokens"] == 4
    assert bool(last["choices"]) is engine.traits.completions_always_tell_usage


async def test_a_streamed_completion_that_was_not_asked_may_tell_usage_all_the_same(engine: EngineUnderTest) -> None:
    body = {"model": engine.model, "prompt": "Once upon a time", "max_tokens": 4, "ignore_eos": True, "stream": True}
    chunks = (await engine.post(COMPLETIONS, body)).chunks
    assert bool(chunks[-1].get("usage")) is engine.traits.completions_always_tell_usage


async def test_two_prompts_are_two_choices(engine: EngineUnderTest) -> None:
    body = {"model": engine.model, "prompt": ["Once upon", "Far away"], "max_tokens": 4, "ignore_eos": True}
    answer = (await engine.post(COMPLETIONS, body)).json
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["usage"]["completion_tokens"] == (4 if engine.traits.usage_per_choice else 8)


async def test_two_prompts_in_a_stream_may_begin_with_an_event_that_says_nothing(engine: EngineUnderTest) -> None:
    body = {"model": engine.model, "prompt": ["Once upon", "Far away"], "max_tokens": 3, "ignore_eos": True}
    first, *others = (await engine.post(COMPLETIONS, body | {"stream": True})).chunks
    assert (first is None) is engine.traits.begins_lists_with_null
    assert {choice["index"] for chunk in others for choice in chunk["choices"]} == {0, 1}


async def test_several_answers_to_each_prompt_are_numbered_prompt_by_prompt(engine: EngineUnderTest) -> None:
    body = {"model": engine.model, "prompt": "Once upon", "n": 2, "max_tokens": 3, "ignore_eos": True}
    answer = (await engine.post(COMPLETIONS, body)).json
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]


@pytest.mark.parametrize("prompt", [[2, 33, 44], [[2, 33], [2, 44]], [2, "river", 33]])
async def test_prompts_may_be_tokens(engine: EngineUnderTest, prompt: list[object]) -> None:
    answer = await engine.post(COMPLETIONS, {"model": engine.model, "prompt": prompt, "max_tokens": 2})
    is_mixed = "river" in prompt
    assert answer.status == (400 if is_mixed and engine.traits.prompts is not Prompts.MIXED else 200)
    if answer.status == 200:
        assert len(answer.json["choices"]) == (2 if isinstance(prompt[0], list) else 1)
        assert answer.json["usage"]["prompt_tokens"] == (
            3 if isinstance(prompt[0], int) else 2 if engine.traits.usage_per_choice else 4
        )


@pytest.mark.parametrize("prompt", [[], [1.5], [-4], {"text": "x"}])
async def test_what_is_no_prompt_is_refused(engine: EngineUnderTest, prompt: object) -> None:
    assert (await engine.post(COMPLETIONS, {"model": engine.model, "prompt": prompt, "max_tokens": 2})).status == 400


async def test_an_echo_is_the_prompt_before_the_answer_or_is_left_aside(engine: EngineUnderTest) -> None:
    body = {"model": engine.model, "prompt": "Once upon", "max_tokens": 2, "ignore_eos": True, "echo": True}
    (choice,) = (await engine.post(COMPLETIONS, body)).json["choices"]
    assert choice["text"].startswith("Once upon") is engine.traits.echoes


async def test_a_completions_log_probabilities_are_lists_or_as_a_chats(engine: EngineUnderTest) -> None:
    body = {"model": engine.model, "prompt": "Once upon", "max_tokens": 3, "ignore_eos": True, "logprobs": 2}
    (choice,) = (await engine.post(COMPLETIONS, body)).json["choices"]
    told = choice["logprobs"]
    if engine.traits.logprobs is Logprobs.AS_CHAT:
        tokens = told["content"]
        assert [len(token["top_logprobs"]) for token in tokens] == [2, 2, 2]
        assert "".join(token["token"] for token in tokens) == choice["text"]
        return
    assert [len(told[name]) for name in ("text_offset", "token_logprobs", "tokens", "top_logprobs")] == [3] * 4
    assert "".join(told["tokens"]) == choice["text"]
    assert all(number < 0 for number in told["token_logprobs"])


# Refusals


async def test_malformed_json_is_refused_with_an_openai_error(engine: EngineUnderTest) -> None:
    answer = await engine.post(CHAT, b'{"model":')
    assert answer.status == 400
    assert answer.content_type.startswith("application/json")
    error = answer.json["error"]
    assert isinstance(error["message"], str)
    assert isinstance(error["type"], str)
    assert error["code"] == answer.status


async def test_a_chat_without_messages_is_a_bad_request(engine: EngineUnderTest) -> None:
    answer = await engine.post(CHAT, {"model": engine.model})
    assert answer.status == 400
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert "messages" in answer.json["error"]["message"]


async def test_a_prompt_longer_than_the_context_is_a_bad_request_that_says_so(engine: EngineUnderTest) -> None:
    answer = await engine.post(CHAT, engine.chat(messages=[{"role": "user", "content": "word " * 3000}]))
    assert answer.status == 400
    assert answer.json["error"]["type"] == engine.traits.context_error_type
    assert "context" in answer.json["error"]["message"]


async def test_an_unknown_model_is_not_found_or_answered_by_the_one_there_is(engine: EngineUnderTest) -> None:
    answer = await engine.post(CHAT, engine.chat(model="no-such-model"))
    assert answer.status == (200 if engine.traits.answers_any_model else 404)
    assert ("error" in answer.json) is not engine.traits.answers_any_model


async def test_an_unknown_path_is_not_found_in_json(engine: EngineUnderTest) -> None:
    answer = await engine.post("/v1/no/such/thing", {})
    assert answer.status == 404
    assert answer.json["error"]["type"] == "not_found_error"


# Clients that go


async def test_closing_a_stream_frees_its_slot_at_once(engine: EngineUnderTest) -> None:
    request = await engine.open(CHAT, engine.chat(stream=True, max_tokens=400))
    await request.first_chunk()
    assert await engine.busy() == 1
    await request.close()
    assert await engine.seconds_until_busy(0) < FREED_WITHIN_S


async def test_closing_only_our_half_of_a_streams_connection_frees_its_slot_too_and_the_engine_closes_the_other(
    engine: EngineUnderTest,
) -> None:
    request = await engine.open(CHAT, engine.chat(stream=True, max_tokens=400))
    await request.first_chunk()
    request.writer.write_eof()
    rest = b""
    with suppress(ConnectionResetError):
        rest = await request.reader.read()
    assert rest.count(b"data: ") < 300, "it went on to the end"
    assert await engine.seconds_until_busy(0) < FREED_WITHIN_S


async def test_closing_a_stream_before_its_first_token_keeps_it_from_generating(engine: EngineUnderTest) -> None:
    prompt = [{"role": "user", "content": f"{time.time_ns()} " + "word " * 200}]  # new, so that no cache shortens it
    body = engine.chat(stream=True, messages=prompt, max_tokens=1500, fake={"ttft_s": 30})
    request = await engine.open(CHAT, body)
    await engine.seconds_until_busy(1)
    await request.close()
    assert await engine.seconds_until_busy(0) < PROMPT_WITHIN_S


async def test_closing_a_stream_that_waits_takes_it_from_the_queue_at_once_or_at_its_turn(
    engine: EngineUnderTest,
) -> None:
    running = [await engine.open(CHAT, engine.chat(stream=True, max_tokens=400)) for _ in range(engine.slots)]
    for request in running:
        await request.first_chunk()
    late = await engine.open(CHAT, engine.chat(stream=True, max_tokens=400))
    await engine.seconds_until_waiting(1)
    await late.close()
    if engine.traits.cancels_waiting:
        assert await engine.seconds_until_waiting(0) < FREED_WITHIN_S
        assert await engine.busy() == engine.slots
    else:
        await asyncio.sleep(0.4)
        assert await engine.waiting() == 1
    await running[0].close()
    assert await engine.seconds_until_busy(1) < FREED_WITHIN_S
    assert await engine.waiting() == 0


async def test_closing_a_plain_request_frees_its_slot_at_once_or_only_at_its_end(engine: EngineUnderTest) -> None:
    request = await engine.open(CHAT, engine.chat(max_tokens=80))
    await engine.seconds_until_busy(1)
    await request.close()
    if engine.traits.cancels_plain:
        assert await engine.seconds_until_busy(0) < FREED_WITHIN_S
    else:
        await asyncio.sleep(0.4)
        assert await engine.busy() == 1
        await engine.seconds_until_busy(0)


# What it says of itself


async def test_the_list_of_models_has_ids_and_the_context_of_one_slot(engine: EngineUnderTest) -> None:
    answer = await engine.get("/v1/models")
    assert answer.status == 200
    assert answer.content_type.startswith("application/json")
    assert answer.json["object"] == "list"
    (model,) = answer.json["data"]
    assert (model["id"], model["object"]) == (engine.model, "model")
    assert isinstance(model["created"], int)
    assert model["meta"]["n_ctx"] == engine.context_tokens


async def test_a_healthy_engine_says_ok(engine: EngineUnderTest) -> None:
    answer = await engine.get("/health")
    assert answer.status == 200
    assert answer.json == {"status": "ok"}


async def test_slots_and_props_agree_on_how_many_there_are(engine: EngineUnderTest) -> None:
    slots = (await engine.get("/slots")).json
    props = (await engine.get("/props")).json
    assert len(slots) == props["total_slots"] == engine.slots
    assert {slot["n_ctx"] for slot in slots} == {engine.context_tokens}
    assert props["default_generation_settings"]["n_ctx"] == engine.context_tokens
    assert [slot["is_processing"] for slot in slots] == [False, False]


async def test_metrics_count_what_runs_and_the_tokens_made(engine: EngineUnderTest) -> None:
    before = await _metrics(engine)
    request = await engine.open(CHAT, engine.chat(stream=True, max_tokens=200))
    await request.first_chunk()
    assert (await _metrics(engine))["llamacpp:requests_processing"] == 1
    await request.close()
    await engine.seconds_until_busy(0)
    await engine.post(CHAT, engine.chat(max_tokens=5))
    after = await _metrics(engine)
    assert after["llamacpp:requests_processing"] == 0
    assert after["llamacpp:tokens_predicted_total"] >= before["llamacpp:tokens_predicted_total"] + 5


async def _metrics(engine: EngineUnderTest) -> dict[str, float]:
    answer = await engine.get("/metrics")
    assert answer.content_type.startswith("text/plain")
    lines = [line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}
