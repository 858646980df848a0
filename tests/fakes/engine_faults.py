"""Faults on order: which they are, how many requests they hit, and which one a request gets. Acting them out is left to
the engine."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any


class FaultKind(StrEnum):
    STATUS = "status"
    """Answer with `status` and `message`, and `retry-after` when `retry_after_s` is given."""
    REFUSE_CONNECTION = "refuse_connection"
    """Stop listening for `seconds`; open connections live on. Acts once, when posted."""
    CLOSE_BEFORE_HEADERS = "close_before_headers"
    """Close the connection instead of answering; with `reset`, by RST."""
    SLOW_HEADERS = "slow_headers"
    """Wait `seconds` before anything else happens."""
    CUT_AFTER = "cut_after"
    """Close in the middle, after `chunks` chunks (in a plain answer: in the middle of the body); with `reset`, by RST."""
    STALL_AFTER = "stall_after"
    """Stay silent for `seconds` after `chunks` chunks, slots held, then go on."""
    ERROR_EVENT_AFTER = "error_event_after"
    """After `chunks` chunks send an error in the stream, then end it properly."""
    MALFORMED_SSE = "malformed_sse"
    """After `chunks` chunks send an event that is not JSON, then go on; a plain answer is cut JSON with a right length."""
    NO_USAGE = "no_usage"
    """Leave out usage, asked for or not."""
    NO_DONE = "no_done"
    """End a stream without `[DONE]`, and an Ollama one without its `done` object."""
    COMMENTS = "comments"
    """An SSE comment line before every chunk."""
    UNHEALTHY = "unhealthy"
    """/health and the model lists answer 503 (llama.cpp's «Loading model»). Generation is not touched."""


class BadFault(Exception):
    """The order for a fault cannot be understood."""


@dataclass(frozen=True, slots=True)
class Fault:
    kind: FaultKind
    times: int | None = 1
    """How many requests it hits; None: all until a reset."""
    on: str = ""
    """Only paths that begin so. Empty: generation and embeddings (for `unhealthy`: the probes)."""
    status: int = 503
    message: str = "injected fault"
    retry_after_s: float | None = None
    seconds: float = 1.0
    chunks: int = 0
    reset: bool = False

    @classmethod
    def from_json(cls, order: Any) -> Fault:
        """`{"kind": "status", "status": 503, "times": 2}`. `times` is 1 unless given, and without end for `unhealthy`."""
        if not isinstance(order, dict):
            raise BadFault("a fault is a JSON object")
        unknown = order.keys() - {f.name for f in fields(cls)}
        if unknown:
            raise BadFault(f"unknown fields: {', '.join(sorted(unknown))}")
        try:
            kind = FaultKind(order.get("kind", ""))
        except ValueError as error:
            raise BadFault(f"kind is one of: {', '.join(FaultKind)}") from error
        default_times = None if kind is FaultKind.UNHEALTHY else 1
        return cls(**{**order, "kind": kind, "times": order.get("times", default_times)})


PROBES = ("/health", "/v1/models", "/api/tags", "/api/version")


@dataclass(frozen=True, slots=True)
class Hit:
    """The faults that one request gets: at most one of a kind."""

    faults: tuple[Fault, ...] = ()

    def __getitem__(self, kind: FaultKind) -> Fault | None:
        return next((fault for fault in self.faults if fault.kind is kind), None)

    def due(self, kind: FaultKind, chunks: int) -> Fault | None:
        """The fault of that kind, if its moment is after this many chunks."""
        fault = self[kind]
        return fault if fault is not None and fault.chunks == chunks else None


class FaultBox:
    """Faults wait here for the requests they hit, oldest first. Faults of different kinds hit the same request."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Fault, int | None]] = []

    def add(self, fault: Fault) -> None:
        self._waiting.append((fault, fault.times))

    def clear(self) -> None:
        self._waiting.clear()

    def take(self, path: str, *, generates: bool) -> Hit:
        hit: dict[FaultKind, Fault] = {}
        left: list[tuple[Fault, int | None]] = []
        for fault, times in self._waiting:
            if fault.kind in hit or not _concerns(fault, path, generates):
                left.append((fault, times))
                continue
            hit[fault.kind] = fault
            if times is None or times > 1:
                left.append((fault, None if times is None else times - 1))
        self._waiting = left
        return Hit(tuple(hit.values()))


def _concerns(fault: Fault, path: str, generates: bool) -> bool:
    if fault.on:
        return path.startswith(fault.on)
    return path in PROBES if fault.kind is FaultKind.UNHEALTHY else generates
