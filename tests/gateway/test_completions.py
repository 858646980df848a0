"""OpenAI's completions: a text, or several, gone on with, through a gateway from a fake engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forebay.wire.v1 import types_pb2
from forebay_gateway.canonical.answer_stream import AnswerStream
from forebay_gateway.canonical.folding import fold_completion
from forebay_gateway.canonical.forms import COMPLETION
from forebay_gateway.canonical.prefix_hashes import BLOCK_BYTES, completion_hashes
from forebay_gateway.dialects.openai.completion import parse_completion
from forebay_gateway.refused import BadField
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.gateway.house import MODEL, OUTCOME, House, open_house
from tests.gateway.sse_text import events

QUICK = Pace(tokens_per_s=1000, answer_tokens=6)
WORDS = "word0 word1 word2 word3 word4 word5"
BOTH = pytest.mark.parametrize("flavour", [Flavour.VLLM, Flavour.LLAMA_CPP])


def complete(house: House, **fields: Any) -> Any:
    body = {"model": MODEL, "prompt": "Once upon a time", **fields}
    return house.client.post(f"{house.url}/v1/completions", json=body, headers=house.headers)


@BOTH
@pytest.mark.parametrize("asks_usage", [False, True])
async def test_a_stream_brings_texts_and_usage_to_those_who_ask(
    tmp_path: Path, flavour: Flavour, asks_usage: bool
) -> None:
    async with open_house(tmp_path, FakeEngine(flavour=flavour, pace=QUICK)) as house:
        options = {"stream_options": {"include_usage": True}} if asks_usage else {}
        async with complete(house, stream=True, **options) as answer:
            assert answer.status == 200
            told = events(await answer.text())
        assert told[-1] == "[DONE]"
        pieces = [choice for event in told[:-1] for choice in event["choices"]]
        assert "".join(piece["text"] for piece in pieces) == WORDS
        assert {event["object"] for event in told[:-1]} == {"text_completion"}
        assert pieces[-1]["finish_reason"] == "stop"
        told_usage = [event["usage"] for event in told[:-1] if event.get("usage")]
        if asks_usage:
            assert told_usage[-1]["completion_tokens"] == 6
        elif flavour is Flavour.VLLM:
            assert told_usage == []  # llama.cpp tells it beside the last piece, asked or not
        (row,) = await house.rows(1)
        assert OUTCOME(row.outcome) == "OUTCOME_FINISHED"
        assert (row.usage.completion_tokens, row.usage.source) == (6, types_pb2.USAGE_SOURCE_ENGINE)
        assert row.route == "/v1/completions"


@BOTH
async def test_two_prompts_with_two_answers_each_are_four_choices_and_four_slots(
    tmp_path: Path, flavour: Flavour
) -> None:
    async with open_house(tmp_path, FakeEngine(slots=4, flavour=flavour, pace=QUICK)) as house:
        async with complete(house, prompt=["Once upon a", "Far, far away"], n=2) as answer:
            told = await answer.json()
        assert answer.status == 200
        assert told["object"] == "text_completion"
        assert [choice["index"] for choice in told["choices"]] == [0, 1, 2, 3]
        assert {choice["text"] for choice in told["choices"]} == {WORDS}
        assert {choice["finish_reason"] for choice in told["choices"]} == {"stop"}
        assert told["usage"]["completion_tokens"] == 24
        assert told["usage"]["prompt_tokens"] == 6
        (row,) = await house.rows(1)
        assert row.width == 4
        assert (row.usage.prompt_tokens, row.usage.completion_tokens) == (6, 24)


async def test_a_prompt_of_tokens_reaches_the_engine_as_it_came(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    async with open_house(tmp_path, engine) as house:
        body = {"model": MODEL, "prompt": [1, 2, 3], "echo": True, "logprobs": 2, "suffix": "the end"}
        async with house.client.post(f"{house.url}/v1/completions", json=body, headers=house.headers) as answer:
            await answer.read()
        assert engine.record.requests[0].body == body


async def test_a_stream_that_breaks_ends_with_an_error_and_not_as_if_it_were_whole(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    engine.faults.add(Fault(FaultKind.CUT_AFTER, chunks=2))
    async with open_house(tmp_path, engine) as house:
        async with complete(house, stream=True) as answer:
            told = events(await answer.text())
        assert told[-1] != "[DONE]"
        assert "error" in told[-1]
        (row,) = await house.rows(1)
        assert OUTCOME(row.outcome) == "OUTCOME_FAILED"


def test_an_answer_that_is_cut_ends_with_length() -> None:
    stream = AnswerStream("m", 2, wants_usage=True, form=COMPLETION, samples=1)
    piece = {"object": "text_completion", "model": "m", "choices": [{"index": 0, "text": "a", "finish_reason": "stop"}]}
    assert stream.feed(b"data: " + json.dumps(piece).encode() + b"\n\n")
    (last,) = events(stream.cut(estimated_prompt=5).decode())
    assert last["object"] == "text_completion"
    assert last["choices"] == [{"index": 1, "text": "", "logprobs": None, "finish_reason": "length"}]
    usage, done = events(stream.tail(9).decode())
    assert usage["usage"]["completion_tokens"] == 1
    assert done == "[DONE]"


def test_an_event_that_says_nothing_is_not_passed_on() -> None:
    """As llama.cpp sends first for several prompts; and what each of them used comes beside its end."""

    def end(index: int, prompt: int) -> bytes:
        choice = {"index": index, "text": "", "finish_reason": "length"}
        usage = {"prompt_tokens": prompt, "completion_tokens": 2, "total_tokens": prompt + 2}
        return b"data: " + json.dumps({"model": "m", "choices": [choice], "usage": usage}).encode() + b"\n\n"

    stream = AnswerStream("m", 2, wants_usage=True, keeps_chunks=True, form=COMPLETION, samples=1)
    assert stream.feed(b"data: null\n\n") == b""
    assert (stream.has_begun, stream.error) == (False, None)
    stream.feed(end(1, 7) + end(0, 5) + b"data: [DONE]\n\n")
    assert stream.is_done
    assert (stream.usage(0).prompt, stream.usage(0).completion) == (12, 4)


def test_log_probabilities_of_pieces_are_joined() -> None:
    def piece(text: str, finish: str | None) -> dict[str, Any]:
        logprobs = {"tokens": [text], "token_logprobs": [-1.0], "text_offset": [0]}
        return {
            "id": "c1",
            "object": "text_completion",
            "choices": [{"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish}],
        }

    whole = fold_completion([piece("a", None), piece("b", "stop")], "m", {"completion_tokens": 2})
    (choice,) = whole["choices"]
    assert (whole["id"], whole["model"], whole["usage"]) == ("c1", "m", {"completion_tokens": 2})
    assert (choice["text"], choice["finish_reason"]) == ("ab", "stop")
    assert choice["logprobs"]["tokens"] == ["a", "b"]


@pytest.mark.parametrize(
    ("prompt", "choices"),
    [("a", 1), (["a"], 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1], [2, 3]], 2), ([""], 1), ("", 1)],
)
def test_a_prompt_is_one_text_or_several_in_words_or_tokens(prompt: Any, choices: int) -> None:
    asked = parse_completion(json.dumps({"model": "m", "prompt": prompt}).encode())
    assert (asked.choices, asked.width) == (choices, choices)


def test_the_best_of_more_takes_more_slots_and_gives_no_more_answers() -> None:
    asked = parse_completion(json.dumps({"model": "m", "prompt": ["a", "b"], "n": 2, "best_of": 3}).encode())
    assert (asked.width, asked.choices, asked.samples) == (6, 4, 2)


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"prompt": None}, "prompt", "missing_required_parameter"),
        ({"prompt": []}, "prompt", "invalid_value"),
        ({"prompt": 3}, "prompt", "invalid_type"),
        ({"prompt": ["a", 1]}, "prompt[1]", "invalid_type"),
        ({"prompt": ["a", True]}, "prompt[1]", "invalid_type"),
        ({"prompt": [["a"]]}, "prompt[0]", "invalid_type"),
        ({"prompt": ["a"] * 129}, "prompt", "invalid_value"),
        ({"n": 3, "best_of": 2}, "best_of", "invalid_value"),
        ({"max_tokens": -1}, "max_tokens", "invalid_value"),
        ({"model": ""}, "model", "missing_required_parameter"),
    ],
)
def test_a_bad_field_is_named(changes: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(BadField) as refused:
        parse_completion(json.dumps({"model": "m", "prompt": "a", **changes}).encode())
    assert (refused.value.param, refused.value.code) == (param, code)


def test_one_long_text_has_names_for_its_beginnings_and_several_have_none() -> None:
    text = "x" * (3 * BLOCK_BYTES)
    assert len(completion_hashes("m", "u", {"prompt": text})) == 3
    assert completion_hashes("m", "u", {"prompt": [text]}) == completion_hashes("m", "u", {"prompt": text})
    assert completion_hashes("m", "u", {"prompt": [text, text]}) == ()
    assert completion_hashes("m", "u", {"prompt": [1, 2]}) == ()
