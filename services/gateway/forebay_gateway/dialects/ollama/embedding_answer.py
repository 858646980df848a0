"""Vectors, from OpenAI's list of embeddings to Ollama's two answers. Pure: the clock is an argument.

Ollama gives unit vectors at `/api/embed`, and at the older `/api/embeddings` what the model made; so does this."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from forebay_gateway.canonical.answer_stream import read_usage
from forebay_gateway.canonical.dialect import ChunkWriter, Json
from forebay_gateway.dialects.ollama.parts import nanoseconds, without_zeros


class EmbedTranslation:
    """To `/api/embed`."""

    def __init__(self, model: str, now: Callable[[], float]) -> None:
        """`now`: seconds since the epoch."""
        self._model, self._now = model, now
        self._arrived = now()

    def rename(self, model: str) -> None:
        self._model = model

    def whole(self, answer: Json) -> Json:
        used = read_usage(answer.get("usage"))
        counts = {
            "total_duration": nanoseconds(self._now() - self._arrived),
            "prompt_eval_count": used.prompt if used else 0,
        }
        return {"model": self._model, "embeddings": [_unit(v) for v in _vectors(answer)], **without_zeros(counts)}

    def writer(self, estimated_prompt: int) -> ChunkWriter:
        raise AssertionError("embeddings are not streamed")


class LegacyEmbeddingTranslation:
    """To `/api/embeddings`."""

    def rename(self, model: str) -> None:
        """No model is named there."""

    def whole(self, answer: Json) -> Json:
        return {"embedding": next(iter(_vectors(answer)), [])}

    def writer(self, estimated_prompt: int) -> ChunkWriter:
        raise AssertionError("embeddings are not streamed")


def _vectors(answer: Json) -> list[list[float]]:
    """In the order of the texts."""
    told = answer.get("data")
    results = [each for each in told if isinstance(each, dict)] if isinstance(told, list) else []
    if all(isinstance(each.get("index"), int) for each in results):
        results.sort(key=lambda each: int(each["index"]))
    return [_numbers(each.get("embedding")) for each in results]


def _numbers(vector: Any) -> list[float]:
    """Nothing when it is not a list of them, such as when an engine answers in base64 that was not asked for."""
    if not isinstance(vector, list) or not all(isinstance(x, int | float) for x in vector):
        return []
    return vector


def _unit(vector: list[float]) -> list[float]:
    length = math.hypot(*vector)
    return [x / length for x in vector] if length else vector
