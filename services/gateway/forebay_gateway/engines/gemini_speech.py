"""OpenAI's chat and embeddings with Google's Gemini, in its own words (v1beta). Pure.

The model is part of the address there, and so is whether the answer is streamed."""

from __future__ import annotations

from typing import NoReturn
from urllib.parse import quote

import orjson

from forebay_gateway.canonical.answer_stream import AnswerStream, StreamError
from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.speech import NoAnswer, OpenAISpeech, Said, Whole, dumped
from forebay_gateway.engines.gemini_reading import GeminiReading, completion_of, embeddings_of
from forebay_gateway.engines.gemini_request import embed_body, generate_body


class GeminiSpeech(OpenAISpeech):
    def __init__(self, asked: Said) -> None:
        super().__init__(asked)
        self.path = address(asked.model_at_engines, "generateContent")
        self.streamed_path = address(asked.model_at_engines, "streamGenerateContent") + "?alt=sse"

    def body(self, *, streamed: bool, ask_usage: bool) -> bytes:
        return dumped(generate_body(self._asked.fields, self._asked.model_at_engines))

    def stream(self, *, folds: bool, estimated_prompt: int) -> AnswerStream:
        stream = super().stream(folds=folds, estimated_prompt=estimated_prompt)
        stream.reading = GeminiReading(self._asked.arrived_at, self._asked.choices)
        return stream

    def whole(self, raw: bytes) -> Whole:
        told = _answer_in(raw, "candidates", "promptFeedback")
        return super().whole(orjson.dumps(completion_of(told, self._asked.arrived_at)))


class GeminiEmbeddingSpeech(OpenAISpeech):
    def __init__(self, asked: Said) -> None:
        super().__init__(asked)
        self.path = self.streamed_path = address(asked.model_at_engines, "batchEmbedContents")

    def body(self, *, streamed: bool, ask_usage: bool) -> bytes:
        return dumped(embed_body(self._asked.fields, self._asked.model_at_engines))

    def stream(self, *, folds: bool, estimated_prompt: int) -> NoReturn:
        raise AssertionError("embeddings are not streamed")

    def whole(self, raw: bytes) -> Whole:
        told = _answer_in(raw, "embeddings")
        whole = super().whole(orjson.dumps(embeddings_of(told, self._asked.model)))
        # OpenAI's clients want a usage, and most of Gemini's models tell none: then the gateway's estimate is what counts.
        return whole if whole.usage is not None and whole.usage.prompt else whole._replace(usage=None)


def address(model: str, method: str) -> str:
    return f"/v1beta/models/{quote(model, safe='')}:{method}"


def _answer_in(raw: bytes, *fields: str) -> Json:
    """That has one of these fields. Raises NoAnswer."""
    try:
        told = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise NoAnswer(StreamError("Its answer is not valid JSON.")) from error
    if isinstance(told, dict) and any(told.get(field) for field in fields):
        return told
    given = told.get("error") if isinstance(told, dict) else None
    body = given if isinstance(given, dict) else None
    raise NoAnswer(StreamError(str((body or {}).get("message", f"Its answer has no `{fields[0]}`.")), body))
