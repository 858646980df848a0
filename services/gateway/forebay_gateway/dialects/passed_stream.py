"""An engine's streamed answer on its way to a client that speaks the engine's own dialect: what all of them have in common.
Pure.

It comes in records, such as events or lines, each with a JSON object. The last one waits for `tail`, so that a request is
settled before its client sees the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import orjson

from forebay_gateway.accounting import Usage
from forebay_gateway.canonical.answer_stream import StreamError
from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.structured import Gathered, Mending

R = TypeVar("R")
"""A record, as it came."""


class RecordTooLong(Exception):
    """A record grows beyond what is ever reasonable; nobody would ever see its end. The text goes on after its name."""


class PassedStream(ABC, Generic[R]):
    """Feed it what the engine sends. After `is_done` or `error` nothing more is taken."""

    record = "a record"

    def __init__(self, model: str, *, folds: bool) -> None:
        """`model`: as the client calls it."""
        self._model = model
        self._cut_usage: Usage | None = None
        self._kept: list[Json] | None = [] if folds else None
        self.ended_by: dict[int, Any] = {}
        self.gathers: Gathered | None = None
        self.mending: Mending | None = None
        self.counted = 0
        self.has_begun = False
        self.is_done = False
        self.error: StreamError | None = None

    # --- what each dialect has of its own ---------------------------------------------------------------------------

    @abstractmethod
    def split(self, piece: bytes) -> Iterable[R]:
        """The records that this piece completes. Raises RecordTooLong after the last that is not."""

    @abstractmethod
    def rest(self) -> R | None:
        """What came after the last record's end, if it is one all the same."""

    @abstractmethod
    def data_of(self, record: R) -> bytes: ...

    @abstractmethod
    def take(self, told: Json, record: R) -> bytes:
        """Of a record that says `told`. Gives what goes to the client now."""

    @abstractmethod
    def close(self, used: Usage) -> None:
        """The answer is cut here; what ends it waits for `tail`."""

    @abstractmethod
    def usage(self, estimated_prompt: int) -> Usage: ...

    # --- the same for all -------------------------------------------------------------------------------------------

    def feed(self, piece: bytes) -> bytes:
        out = []
        try:
            for record in self.split(piece):
                out.append(self._take(record))
        except RecordTooLong as error:
            if not self._is_over:
                self.error = StreamError(f"The engine sent {self.record} {error}.")
        return b"".join(out)

    def end(self) -> bytes:
        rest = self.rest()
        out = self._take(rest) if rest is not None else b""
        if not self._is_over:
            self.error = StreamError("The engine ended its answer in the middle.")
        return out

    @property
    def repeats(self) -> None:
        return None

    @property
    def can_be_cut(self) -> bool:
        return self.has_begun and not self._is_over

    @property
    def is_cut(self) -> bool:
        return self._cut_usage is not None

    def cut(self, estimated_prompt: int) -> bytes:
        self._cut_usage = self.usage(estimated_prompt)
        self.close(self._cut_usage)
        self.is_done = True
        return b""

    @property
    def _is_over(self) -> bool:
        return self.is_done or self.error is not None

    def _take(self, record: R) -> bytes:
        if self._is_over:
            return b""
        told = object_in(self.data_of(record))
        if told is None:
            self.error = StreamError(f"The engine sent {self.record} that is not a JSON object.")
            return b""
        return self.take(told, record)


def object_in(data: bytes) -> Json | None:
    try:
        told = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return told if isinstance(told, dict) else None
