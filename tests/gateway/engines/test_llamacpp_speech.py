"""What llama.cpp's server leaves aside is refused by its name, and the log probabilities of its completions get OpenAI's
form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forebay.wire.v1 import types_pb2
from forebay_gateway.canonical.forms import CHAT, COMPLETION, EMBEDDING, Form
from forebay_gateway.canonical.speech import NoAnswer
from forebay_gateway.dialects.openai.completion import parse_completion
from forebay_gateway.engines.llamacpp_speech import LlamaCppSpeech, unspoken_by_llamacpp
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.gateway.house import MODEL, open_house
from tests.gateway.sse_text import events


def likely(token: str, value: float, *others: tuple[str, float]) -> dict[str, Any]:
    top = [{"token": text, "logprob": number} for text, number in ((token, value), *others)]
    return {"token": token, "logprob": value, "top_logprobs": top}


def choice(index: int, text: str, *tokens: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    logprobs = {"content": list(tokens)} if tokens else None
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}


def speech(**fields: Any) -> LlamaCppSpeech:
    return LlamaCppSpeech(parse_completion(json.dumps({"model": "m", "prompt": "x", **fields}).encode()))


LISTS = {
    "text_offset": [0, 3],
    "token_logprobs": [-0.1, -0.2],
    "tokens": [" of", " the"],
    "top_logprobs": [{" of": -0.1, " day": -3.0}, {" the": -0.2}],
}


def test_a_whole_answers_log_probabilities_are_lists() -> None:
    tokens = likely(" of", -0.1, (" day", -3.0)), likely(" the", -0.2)
    raw = json.dumps({"model": "m", "choices": [choice(0, " of the", *tokens, finish="length")]}).encode()
    told = json.loads(speech(logprobs=2).whole(raw).body)
    assert told["choices"][0]["logprobs"] == LISTS
    assert json.loads(speech().whole(raw).body) == json.loads(raw)


def test_offsets_go_on_from_piece_to_piece_in_each_choice() -> None:
    stream = speech(logprobs=2, n=2, stream=True).stream(folds=False, estimated_prompt=1)
    pieces = [
        [choice(0, " of", likely(" of", -0.1, (" day", -3.0)))],
        [choice(1, " a", likely(" a", -0.5))],
        [choice(0, " the", likely(" the", -0.2))],
        [choice(0, "", finish="length"), choice(1, "", finish="length")],
    ]
    out = b"".join(stream.feed(b"data: " + json.dumps({"choices": each}).encode() + b"\n\n") for each in pieces)
    told = [each["choices"][0]["logprobs"] for each in events(out.decode())]
    assert [each and each["text_offset"] for each in told] == [[0], [0], [3], None]
    assert told[2]["top_logprobs"] == [{" the": -0.2}]


@pytest.mark.parametrize("raw", [b"{", b"[]", b'{"choices": 3}'])
def test_what_is_no_answer_is_none(raw: bytes) -> None:
    with pytest.raises(NoAnswer):
        speech(logprobs=1).whole(raw)


def test_log_probabilities_that_make_no_sense_stay_as_they_are() -> None:
    odd = {"choices": [{"index": 0, "text": "a", "logprobs": {"content": [{}]}}]}
    assert json.loads(speech(logprobs=1).whole(json.dumps(odd).encode()).body)["choices"] == odd["choices"]


@pytest.mark.parametrize(
    ("form", "fields", "param"),
    [
        (COMPLETION, {"echo": True}, "echo"),
        (COMPLETION, {"suffix": "the end"}, "suffix"),
        (COMPLETION, {"best_of": 3, "n": 2}, "best_of"),
        (EMBEDDING, {"dimensions": 5}, "dimensions"),
        (COMPLETION, {"echo": False, "suffix": "", "best_of": 2, "n": 2, "logprobs": 3}, None),
        (EMBEDDING, {"input": [[1, 2]]}, None),
        (CHAT, {"n": 2, "suffix": "x"}, None),
    ],
)
def test_what_it_leaves_aside_is_refused_by_its_name(form: Form, fields: dict[str, Any], param: str | None) -> None:
    error = unspoken_by_llamacpp(fields, form)
    assert (error and error.param) == param


async def test_a_request_that_it_would_cut_short_goes_to_an_engine_that_serves_all_of_it(tmp_path: Path) -> None:
    quick = Pace(tokens_per_s=4000.0, ttft_s=0.0, answer_tokens=3)
    fakes = FakeEngine(flavour=Flavour.LLAMA_CPP, pace=quick), FakeEngine(flavour=Flavour.VLLM, pace=quick)
    async with open_house(tmp_path, *fakes) as house:
        for id_, fake, kind in zip(
            ("b1", "b2"), fakes, (types_pb2.ENGINE_KIND_LLAMACPP, types_pb2.ENGINE_KIND_VLLM), strict=True
        ):
            await house.put(id_, fake.url, kind=kind, slots=4)
        for _ in range(4):
            body = {"model": MODEL, "prompt": "Once", "echo": True}
            async with house.client.post(f"{house.url}/v1/completions", json=body, headers=house.headers) as answer:
                told = await answer.json()
            assert answer.status == 200, told
            assert told["choices"][0]["text"] == "Onceword0 word1 word2"
