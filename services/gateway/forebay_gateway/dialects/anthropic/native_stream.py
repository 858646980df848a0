"""Anthropic's streamed answer on its way to a client that speaks its dialect too: events in, the same events out. Pure.

One thing is changed and nothing else: the model has the name that the client used. The first event waits until something of
the answer is there, since until then another backend may take over; the last one waits for `tail`, so that a request is
settled before its client sees the end."""

from __future__ import annotations

from typing import Any

import orjson

from forebay_gateway.accounting import Usage, UsageSource
from forebay_gateway.canonical.answer_stream import StreamError, read_usage
from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.sse import Event, EventTooLong, Splitter
from forebay_gateway.dialects.anthropic.folded import fold_message
from forebay_gateway.dialects.anthropic.mended import ENDED_IN_WORDS, mended_message
from forebay_gateway.dialects.passed_stream import PassedStream, RecordTooLong, object_in
from forebay_gateway.engines.anthropic_reading import usage_of

_TEXTS = ("text", "thinking", "partial_json")
_CHARACTERS_PER_TOKEN = 4


class MessagesStream(PassedStream[Event]):
    record = "an event"

    def __init__(self, model: str, *, folds: bool) -> None:
        super().__init__(model, folds=folds)
        self._splitter = Splitter()
        self._held = b""
        """What came before the answer began."""
        self._usage: Json = {}
        self._open_block: Any = None
        """The number of the block that is not closed."""
        self._tail = b""

    def split(self, piece: bytes) -> list[Event]:
        try:
            return self._splitter.feed(piece)
        except EventTooLong as error:
            raise RecordTooLong("without end") from error

    def rest(self) -> Event | None:
        rest = self._splitter.rest()
        return rest if rest is not None and object_in(rest.data) is not None else None

    def data_of(self, record: Event) -> bytes:
        return record.data

    def close(self, used: Usage) -> None:
        delta = {"stop_reason": "max_tokens", "stop_sequence": None}
        events: list[Json] = [
            {"type": "message_delta", "delta": delta, "usage": {**self._usage, "output_tokens": used.completion}},
            {"type": "message_stop"},
        ]
        if self._open_block is not None:
            events.insert(0, {"type": "content_block_stop", "index": self._open_block})
        self._tail = b"".join(_written(event) for event in events)
        if self._kept is not None:
            self._kept += events

    def tail(self, estimated_prompt: int) -> bytes:
        return self._tail

    def usage(self, estimated_prompt: int) -> Usage:
        if self._cut_usage is not None:
            return self._cut_usage
        known = read_counts(self._usage)
        if self.is_done and known is not None:
            return known
        # The first event tells the prompt, and only the last but one the answer.
        return Usage(
            prompt=known.prompt if known is not None else estimated_prompt,
            cached_prompt=known.cached_prompt if known is not None else 0,
            completion=self.counted,
            source=UsageSource.COUNTED if self.counted else UsageSource.ESTIMATED,
        )

    def fold(self, estimated_prompt: int) -> bytes:
        assert self._kept is not None, "it was not made to be folded"
        whole = {**fold_message(self._kept), "model": self._model}
        return orjson.dumps(whole if self.mending is None else mended_message(whole, self.mending))

    def take(self, told: Json, record: Event) -> bytes:
        kind, raw = told.get("type"), record.raw
        if kind == "error" or "error" in told:
            body = told.get("error")
            body = body if isinstance(body, dict) else {"message": "no reason given"}
            self.error = StreamError(str(body.get("message", "no reason given")), body)
            return b""
        if self._kept is not None:
            self._kept.append(told)
        match kind:
            case "message_start":
                message = told.get("message")
                if isinstance(message, dict):
                    self._note_usage(message)
                    raw = b"event: message_start\n" + _renamed_data(record.data, message, self._model) + b"\n\n"
            case "content_block_start":
                self.has_begun = True
                self._open_block = told.get("index")
            case "content_block_delta":
                self._count(told.get("delta"))
                self._gather(told.get("delta"))
            case "content_block_stop":
                self._open_block = None
            case "message_delta":
                self.has_begun = True
                self._note_usage(told)
                self._note_end(told.get("delta"))
                self._gather(told.get("delta"))
            case "message_stop":
                self.is_done = self.has_begun = True
                self._tail = raw
                raw = b""
        self._held += raw
        if not self.has_begun or self._kept is not None:
            return b""
        out, self._held = self._held, b""
        return out

    def _note_end(self, delta: Any) -> None:
        if isinstance(delta, dict):
            self.ended_by = {0: delta.get("stop_reason")}

    def _gather(self, delta: Any) -> None:
        if self.gathers is None or not isinstance(delta, dict):
            return
        text, stopped = delta.get("text"), delta.get("stop_reason")
        is_other = stopped is not None and stopped not in ENDED_IN_WORDS
        self.gathers.take(0, text if isinstance(text, str) else "", is_other=is_other)

    def _count(self, delta: Any) -> None:
        characters = sum(len(delta.get(name) or "") for name in _TEXTS) if isinstance(delta, dict) else 0
        if characters:
            self.counted += max(1, round(characters / _CHARACTERS_PER_TOKEN))

    def _note_usage(self, told: Json) -> None:
        usage = told.get("usage")
        if isinstance(usage, dict):
            self._usage |= {name: value for name, value in usage.items() if value is not None}


def read_counts(usage: Any) -> Usage | None:
    """Anthropic's usage object. None when it is not one, or says nothing."""
    if not isinstance(usage, dict) or not ("input_tokens" in usage or "output_tokens" in usage):
        return None
    return read_usage(usage_of(usage))


def renamed(raw: bytes, told: Json, model: str) -> bytes:
    """`raw`, and what it says; the same with the model's name as the client has it."""
    if told.get("model", model) == model:
        return raw
    try:
        return orjson.dumps({**told, "model": model})
    except orjson.JSONEncodeError:  # deeper than can be written again
        return raw


def _renamed_data(data: bytes, message: Json, model: str) -> bytes:
    if message.get("model", model) == model:
        return b"data: " + data
    return b"data: " + orjson.dumps({"type": "message_start", "message": {**message, "model": model}})


def _written(event: Json) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))
