"""What is near what, of a real sentence model on llama.cpp, through a gateway by two client libraries."""

from __future__ import annotations

import math
import operator

import pytest

from forebay.wire.v1 import types_pb2
from tests.engines.conftest import ollama_of, openai_of
from tests.gateway.house import MODEL, House

pytestmark = pytest.mark.engines_heavy

TEXTS = ["cat", "kitten", "stocks"]
KITTEN, STOCKS = 0.788, 0.203
"""The cosines of `cat` with these, as vLLM tells them of the same weights."""


def cosines(vectors: list[list[float]]) -> list[float]:
    """Of the first with each of the others."""
    return [
        sum(map(operator.mul, vectors[0], other)) / math.hypot(*vectors[0]) / math.hypot(*other)
        for other in vectors[1:]
    ]


async def test_a_cat_is_nearer_to_a_kitten_than_to_stocks(embedding_house: House) -> None:
    async with openai_of(embedding_house) as client:
        told = await client.embeddings.create(model=MODEL, input=TEXTS)
    assert cosines([each.embedding for each in told.data]) == pytest.approx([KITTEN, STOCKS], abs=0.01)
    assert told.usage.prompt_tokens == 3 * 3  # each word between a beginning and an end
    (row,) = await embedding_house.rows(1)
    assert (row.usage.prompt_tokens, row.usage.source) == (9, types_pb2.USAGE_SOURCE_ENGINE)


async def test_ollamas_library_is_told_the_same(embedding_house: House) -> None:
    client = ollama_of(embedding_house)
    embedded = await client.embed(MODEL, TEXTS)
    older = [list((await client.embeddings(MODEL, text)).embedding) for text in TEXTS]
    await client._client.aclose()
    assert cosines([list(vector) for vector in embedded.embeddings]) == pytest.approx([KITTEN, STOCKS], abs=0.01)
    assert cosines(older) == pytest.approx([KITTEN, STOCKS], abs=0.01)
    assert embedded.prompt_eval_count == 9
