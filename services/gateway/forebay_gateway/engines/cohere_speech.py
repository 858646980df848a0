"""OpenAI's chat and embeddings, and rankings, with Cohere in its own words (v2). Pure."""

from __future__ import annotations

from typing import NoReturn

import orjson

from forebay_gateway.canonical.answer_stream import AnswerStream, StreamError
from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.speech import NoAnswer, OpenAISpeech, Said, Whole, dumped
from forebay_gateway.engines.cohere_reading import CohereReading, completion_of, embeddings_of, failure_of
from forebay_gateway.engines.cohere_request import chat_body, embed_body, rerank_body


class CohereSpeech(OpenAISpeech):
    def __init__(self, asked: Said) -> None:
        super().__init__(asked)
        self.path = self.streamed_path = "/v2/chat"

    def body(self, *, streamed: bool, ask_usage: bool) -> bytes:
        return dumped(chat_body(self._asked.fields, self._asked.model_at_engines, streamed=streamed))

    def stream(self, *, folds: bool, estimated_prompt: int) -> AnswerStream:
        stream = super().stream(folds=folds, estimated_prompt=estimated_prompt)
        stream.reading = CohereReading(self._asked.arrived_at, self._asked.model)
        return stream

    def whole(self, raw: bytes) -> Whole:
        told = _answer_in(raw, "message")
        if failure := failure_of(told):
            raise NoAnswer(StreamError(failure))
        return super().whole(orjson.dumps(completion_of(told, self._asked.arrived_at, self._asked.model)))


class CohereEmbeddingSpeech(OpenAISpeech):
    def __init__(self, asked: Said) -> None:
        super().__init__(asked)
        self.path = self.streamed_path = "/v2/embed"

    def body(self, *, streamed: bool, ask_usage: bool) -> bytes:
        return dumped(embed_body(self._asked.fields, self._asked.model_at_engines))

    def stream(self, *, folds: bool, estimated_prompt: int) -> NoReturn:
        raise AssertionError("embeddings are not streamed")

    def whole(self, raw: bytes) -> Whole:
        return super().whole(orjson.dumps(embeddings_of(_answer_in(raw, "embeddings"), self._asked.model)))


class CohereRerankSpeech(OpenAISpeech):
    def __init__(self, asked: Said) -> None:
        super().__init__(asked)
        self.path = self.streamed_path = "/v2/rerank"

    def body(self, *, streamed: bool, ask_usage: bool) -> bytes:
        return dumped(rerank_body(self._asked.fields, self._asked.model_at_engines))

    def stream(self, *, folds: bool, estimated_prompt: int) -> NoReturn:
        raise AssertionError("rankings are not streamed")

    def whole(self, raw: bytes) -> Whole:
        # It bills by search and tells no tokens: the gateway's estimate is what counts.
        return super().whole(orjson.dumps(_answer_in(raw, "results")))._replace(usage=None)


def _answer_in(raw: bytes, field: str) -> Json:
    """That has this field. Raises NoAnswer."""
    try:
        told = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise NoAnswer(StreamError("Its answer is not valid JSON.")) from error
    if isinstance(told, dict) and told.get(field):
        return told
    given = told.get("message") if isinstance(told, dict) else None
    raise NoAnswer(StreamError(given if isinstance(given, str) else f"Its answer has no `{field}`."))
