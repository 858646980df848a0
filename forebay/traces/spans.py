"""Spans of traced requests: which requests are traced, what a span says, and where spans wait until they are exported.

As with logs, a process has one place for them, or none; where there is none, or a request is not traced, nothing is built.
Exporting is for `opening`, which alone knows OpenTelemetry."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple

from forebay.traces.context import Place, is_sampled, place_in

Value = str | int | float | bool | Sequence[str]
Attributes = Mapping[str, Value]
_NONE: Attributes = MappingProxyType({})

_RANDOM_BYTES = 7
"""Of a trace's id, at its end: those that are random (W3C Trace Context, level 2)."""
ALL = 1 << 8 * _RANDOM_BYTES

_ids = random.Random()  # they have to differ, and need not be hard to guess

current: ContextVar[Place | None] = ContextVar("current", default=None)
"""The span of the traced request that is being served."""


class Kind(IntEnum):
    """By OpenTelemetry's numbers."""

    INTERNAL = 0
    SERVER = 1
    CLIENT = 2


class Event(NamedTuple):
    name: str
    at: float
    """Seconds since the epoch."""


class Span(NamedTuple):
    name: str
    kind: Kind
    place: Place
    parent: bytes
    """The id of the span above it, 8 bytes; empty: it is the first of its trace."""
    began: float
    """Seconds since the epoch; likewise the end."""
    ended: float
    attributes: Attributes = _NONE
    error: str = ""
    """The word for what went wrong; empty: nothing did."""
    events: Sequence[Event] = ()
    has_remote_parent: bool = False


@dataclass(frozen=True, slots=True)
class Sampling:
    bound: int
    """So many of ALL traces are kept."""
    heeds_parent: bool
    """Who sends a context has decided."""

    def keeps(self, trace: bytes, is_kept_above: bool | None) -> bool:
        """`is_kept_above`: None: no context came. An id decides the same wherever it is asked."""
        if is_kept_above is not None and self.heeds_parent:
            return is_kept_above
        return int.from_bytes(trace[-_RANDOM_BYTES:]) < self.bound


class Begun(NamedTuple):
    """The first span of a traced request in this process."""

    place: Place
    parent: bytes


class Traces:
    def __init__(self, sampling: Sampling, most_waiting: int, on_many: Callable[[], None], many: int) -> None:
        """Called from the loop's thread but for `take`, which an exporting thread calls. `most_waiting` spans wait at most,
        and others are dropped. `on_many` is called when `many` wait."""
        self._sampling = sampling
        self._most_waiting = most_waiting
        self._on_many, self._many = on_many, many
        self._waiting: deque[Span] = deque()
        self.overflowed = 0
        """Spans that found no room."""

    def begin(self, own_trace: bytes, traceparent: str | None = None, tracestate: str = "") -> Begun | None:
        """None: it is not traced. `own_trace`: 16 bytes for the trace's id, where no context came. `traceparent`: as
        `read_traceparent` gave it."""
        if traceparent is None:
            if not self._sampling.keeps(own_trace, None):
                return None
            return Begun(Place(own_trace, new_span_id()), b"")
        above = place_in(traceparent, tracestate)
        if not self._sampling.keeps(above.trace, is_sampled(traceparent)):
            return None
        return Begun(above._replace(span=new_span_id()), above.span)

    def tell(self, *spans: Span) -> None:
        """They are over."""
        if len(self._waiting) + len(spans) > self._most_waiting:
            self.overflowed += len(spans)
            return
        self._waiting.extend(spans)
        if len(self._waiting) >= self._many:
            self._on_many()

    def take(self, most: int) -> list[Span]:
        """The oldest of those that wait."""
        taken: list[Span] = []
        while len(taken) < most and self._waiting:
            taken.append(self._waiting.popleft())
        return taken


_opened: Traces | None = None


def opened() -> Traces | None:
    """This process's. None: nothing is traced. To be looked up once, by who is opened after it."""
    return _opened


def set_opened(traces: Traces | None) -> None:
    """By `opening` alone."""
    global _opened
    _opened = traces


def new_span_id() -> bytes:
    """8 bytes, not all zero."""
    return (_ids.getrandbits(64) or 1).to_bytes(8)


def new_trace_id() -> bytes:
    """16 bytes, of a trace that no request's ledger id names."""
    return new_span_id() + new_span_id()
