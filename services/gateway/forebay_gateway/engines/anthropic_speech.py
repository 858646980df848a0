"""OpenAI's chat with Anthropic, or with what speaks its messages. Pure.

Anthropic's own clients do not come this way: their words pass as they are (`dialects/anthropic/native.py`)."""

from __future__ import annotations

import orjson

from forebay_gateway.canonical.answer_stream import AnswerStream, StreamError
from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.speech import NoAnswer, OpenAISpeech, Said, Whole, dumped
from forebay_gateway.engines.anthropic_reading import AnthropicReading, completion_of
from forebay_gateway.engines.anthropic_request import messages_body

PATH = "/v1/messages"


class AnthropicSpeech(OpenAISpeech):
    def __init__(self, asked: Said) -> None:
        super().__init__(asked)
        self.path = self.streamed_path = PATH

    def body(self, *, streamed: bool, ask_usage: bool) -> bytes:
        return dumped(messages_body(self._asked.fields, self._asked.model_at_engines, streamed=streamed))

    def stream(self, *, folds: bool, estimated_prompt: int) -> AnswerStream:
        stream = super().stream(folds=folds, estimated_prompt=estimated_prompt)
        stream.reading = AnthropicReading(self._asked.arrived_at)
        return stream

    def whole(self, raw: bytes) -> Whole:
        return super().whole(orjson.dumps(completion_of(message_in(raw), self._asked.arrived_at)))


def message_in(raw: bytes) -> Json:
    """A whole answer. Raises NoAnswer."""
    try:
        told = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise NoAnswer(StreamError("Its answer is not valid JSON.")) from error
    if isinstance(told, dict) and isinstance(told.get("content"), list):
        return told
    given = told.get("error") if isinstance(told, dict) else None
    body = given if isinstance(given, dict) else None
    raise NoAnswer(StreamError(str((body or {}).get("message", "Its answer has no `content`.")), body))
