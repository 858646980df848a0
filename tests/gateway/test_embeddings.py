"""OpenAI's embeddings: texts in, vectors out, through a gateway from a fake engine."""

from __future__ import annotations

import base64
import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from forebay.wire.v1 import types_pb2
from forebay_gateway.dialects.openai.embedding import parse_embedding
from forebay_gateway.refused import BadField
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_measuring import UNSCALED
from tests.gateway.house import MODEL, OUTCOME, open_house


@pytest.mark.parametrize("flavour", [Flavour.VLLM, Flavour.LLAMA_CPP])
async def test_a_batch_takes_one_slot_and_pays_for_its_prompts(tmp_path: Path, flavour: Flavour) -> None:
    engine = FakeEngine(slots=1, flavour=flavour)
    async with open_house(tmp_path, engine) as house:
        client = AsyncOpenAI(base_url=f"{house.url}/v1", api_key=str(house.key), max_retries=0)
        async with client:
            told = await client.embeddings.create(
                model=MODEL, input=["a b c", "d e"], encoding_format="float", extra_body={"some_new_field": 1}
            )
        assert [vector.index for vector in told.data] == [0, 1]
        assert told.data[0].embedding != told.data[1].embedding
        assert told.usage.prompt_tokens == 5
        (row,) = await house.rows(1)
        assert OUTCOME(row.outcome) == "OUTCOME_FINISHED"
        assert (row.width, row.stream, row.route) == (1, False, "/v1/embeddings")
        assert (row.usage.prompt_tokens, row.usage.completion_tokens) == (5, 0)
        assert row.usage.source == types_pb2.USAGE_SOURCE_ENGINE
        assert engine.record.requests[0].body["some_new_field"] == 1
        assert "stream" not in engine.record.requests[0].body


async def test_who_asks_for_base64_gets_it_from_an_engine_that_answers_with_numbers(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(slots=1)) as house:
        told = []
        for encoding in ("float", "base64"):
            body = {"model": MODEL, "input": ["a b c", "d e"], "encoding_format": encoding}
            async with house.client.post(f"{house.url}/v1/embeddings", json=body, headers=house.headers) as answer:
                assert answer.status == 200
                told.append(await answer.json())
        numbers, packed = told
        assert packed["usage"] == numbers["usage"]
        for result, same in zip(packed["data"], numbers["data"], strict=True):
            assert result["index"] == same["index"]
            assert struct.unpack("<8f", base64.b64decode(result["embedding"])) == pytest.approx(same["embedding"])


def test_base64_of_an_engine_stays_as_it_is_and_so_does_what_is_no_vector() -> None:
    asked = parse_embedding(b'{"model": "m", "input": ["a", "b", "c"], "encoding_format": "base64"}')
    data = [
        {"index": 0, "embedding": "AACAPw=="},
        {"index": 1, "embedding": [[1.0]]},
        {"index": 2, "embedding": [1e99]},
    ]
    assert asked.translation is not None
    assert asked.translation.whole({"data": data, "model": "m"}) == {"data": data, "model": "m"}


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": {"text": "a"}}, "input", "invalid_type"),
        ({"input": ["a"] * 2049}, "input", "invalid_value"),
        ({"dimensions": 0}, "dimensions", "invalid_value"),
        ({"encoding_format": 3}, "encoding_format", "invalid_type"),
        ({"encoding_format": "hex"}, "encoding_format", "invalid_value"),
    ],
)
def test_a_bad_field_is_named(changes: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(BadField) as refused:
        parse_embedding(json.dumps({"model": "m", "input": "a", **changes}).encode())
    assert (refused.value.param, refused.value.code) == (param, code)


@pytest.mark.parametrize(("path", "length"), [("/api/embeddings", UNSCALED), ("/api/embed", 1.0)])
async def test_ollamas_older_address_gives_vectors_as_the_model_made_them_also_on_llama_cpp(
    tmp_path: Path, path: str, length: float
) -> None:
    engine = FakeEngine(flavour=Flavour.LLAMA_CPP)
    async with open_house(tmp_path, engine) as house:
        body = {"model": MODEL, "prompt": "a b c", "input": "a b c"}
        async with house.client.post(f"{house.url}{path}", json=body, headers=house.headers) as answer:
            told = await answer.json()
        vector = told["embedding"] if "embedding" in told else told["embeddings"][0]
        assert math.hypot(*vector) == pytest.approx(length)
