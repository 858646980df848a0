"""Embeddings in base64 for a client that asked for them so, also from an engine that answers with numbers whatever it is
asked. Pure.

Ollama and LM Studio have been such engines. The sixth major of OpenAI's JavaScript library asks for base64 when its caller
says nothing, and decodes what comes without looking: of a list of numbers it makes a vector of a quarter of the length, all
wrong, and no error (github.com/ollama/ollama/issues/6934)."""

from __future__ import annotations

import base64
import struct
from typing import Any

from forebay_gateway.canonical.dialect import ChunkWriter, Json


class Base64Vectors:
    """To what was asked for; an answer that is in base64 already stays as it is."""

    def rename(self, model: str) -> None:
        """The engine's answer is renamed already."""

    def whole(self, answer: Json) -> Json:
        return {**answer, "data": [_packed_result(result) for result in answer["data"]]}

    def writer(self, estimated_prompt: int) -> ChunkWriter:
        raise AssertionError("embeddings are not streamed")


def _packed_result(result: Any) -> Any:
    if not isinstance(result, dict) or not isinstance(result.get("embedding"), list):
        return result
    return {**result, "embedding": _packed(result["embedding"])}


def _packed(vector: list[Any]) -> Any:
    """As 32-bit floats, little-endian, which is what OpenAI sends. What is no vector of such numbers stays as it is."""
    try:
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    except (struct.error, OverflowError):
        return vector
