"""From chat's answer to a response: a whole one here, one that grows in `stream`. Pure but for the names of its items."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.dialects.responses.input_text import input_in
from forebay_gateway.dialects.responses.items import (
    CUSTOM,
    FUNCTION,
    PARTS,
    TEXT,
    Called,
    NewId,
    Spoken,
    names_within,
    new_id,
)
from forebay_gateway.dialects.responses.said import (
    arguments_in,
    logprobs_in,
    object_in,
    objects_in,
    said_in,
    text_in,
)
from forebay_gateway.dialects.responses.snapshot import Snapshot, is_cut
from forebay_gateway.dialects.responses.stream import ResponseWriter
from forebay_gateway.dialects.responses.telling import Telling, announcing
from forebay_gateway.dialects.responses.thoughts import Thoughts


class ResponseTranslation:
    """For one request."""

    def __init__(self, model: str, echo: Json, named: NewId | None = None, *, thoughts: Thoughts | None = None) -> None:
        """`echo`: what the response repeats of its request. `thoughts`: to conceal the reasoning with, for a client that
        carries it."""
        self._model = model
        self._echo = echo
        self.id = (named or new_id)("resp")
        self.named = named or names_within(self.id)
        """Names its items, those of its input too."""
        self._thoughts = thoughts
        self._customs = frozenset(tool["name"] for tool in echo.get("tools", ()) if tool["type"] == "custom")
        """Tools whose calls are told as theirs."""
        self._queued_at: float | None = None
        self._queued = Telling([])
        self._whole: Json | None = None
        self._writer: ResponseWriter | None = None
        """Of the last attempt."""

    def rename(self, model: str) -> None:
        self._model = model

    @property
    def response(self) -> Json | None:
        """As it ended. May be changed, and be told once more."""
        return self._whole if self._writer is None else self._writer.response

    def queue(self, now: float) -> Json:
        """Announces the response, before any engine is asked. `now`: seconds since the epoch."""
        self._queued_at = int(now)
        self._queued = self._announced()
        return self._snapshot().queued()

    @property
    def telling(self) -> Telling:
        """What is told of a response that was announced."""
        return self._queued if self._writer is None else self._writer.telling

    def tell_again(self) -> bytes:
        """What the client gets at the end: the last events of a stream, or all."""
        return orjson.dumps(self._whole) if self._writer is None else self._writer.end_again()

    def broken(self, status: str, error: Json | None) -> Json | None:
        """A response that was begun and did not come to its end. `status`: failed or cancelled; `error`: OpenAI's
        `code` and `message`. None when the client was told of none."""
        told = None if self._writer is None else self._writer.broken(status, error)
        if told is None and self._queued_at is not None:
            told = self._snapshot().broken([], status, error)
        return told

    def fail(self, error: Json) -> tuple[bytes, Json, int]:
        """Of a stream that has begun, if only with comments: what has to be told before the error is, the response as far as
        it came, and the number of the next event. `error`: OpenAI's `code` and `message`."""
        if self._writer is None or self._writer.broken("failed", error) is None:
            self._echo = {**self._echo, "store": False}  # nothing is kept of what never began
            return self.writer(0).fail(error)
        return self._writer.fail(error)

    def whole(self, answer: Json) -> Json:
        snapshot = self._snapshot()
        snapshot.note_created(answer)
        choice = next(iter(objects_in(answer, "choices")), {})
        finish_reason = choice.get("finish_reason")
        items = list(self._items(choice))
        output = [item.ended("completed") for item in items[:-1]]
        output += [item.ended("incomplete" if is_cut(finish_reason) else "completed") for item in items[-1:]]
        self._whole = snapshot.ended(output, finish_reason, answer.get("usage"))
        return self._whole

    def writer(self, estimated_prompt: int) -> ResponseWriter:
        told = self._announced() if self._queued_at is not None else None
        self._writer = ResponseWriter(
            self._snapshot(), self.named, told=told, thoughts=self._thoughts, customs=self._customs
        )
        return self._writer

    def _snapshot(self) -> Snapshot:
        queued_at = self._queued_at
        return Snapshot(self.id, self._model, self._echo, queued_at or 0, is_dated=queued_at is not None)

    def _announced(self) -> Telling:
        return Telling(announcing(self._snapshot().queued()))

    def _items(self, choice: Json) -> Iterator[Spoken | Called]:
        message = object_in(choice, "message")
        for part in PARTS:
            if said := said_in(message, part):
                logprobs = logprobs_in(choice) if part is TEXT else []
                yield Spoken(part, self.named(part.prefix), [said], logprobs, self._thoughts)
        for call in objects_in(message, "tool_calls"):
            function = object_in(call, "function")
            name, arguments = text_in(function, "name"), arguments_in(function)
            kind = CUSTOM if name in self._customs else FUNCTION
            yield Called(
                id=self.named(kind.prefix),
                call_id=text_in(call, "id") or self.named("call"),
                name=name,
                pieces=[input_in(arguments) if kind is CUSTOM else arguments],
                kind=kind,
            )
