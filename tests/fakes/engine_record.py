"""What the fake engine saw, for tests to ask afterwards. All times are `time.monotonic()`, comparable between the
processes of one host."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Ending(StrEnum):
    RUNNING = "running"
    FINISHED = "finished"
    DISCONNECTED = "disconnected"
    """The client closed before the answer was complete."""
    REFUSED = "refused"
    """Answered with an error status: a bad request, no free slot, or an injected status."""
    BROKEN = "broken"
    """An injected fault spoilt the answer."""


@dataclass(slots=True)
class Seen:
    """One request for generation, embeddings or any other of the engine's work, filled in as it goes."""

    id: int
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: Any
    """Parsed JSON; a form as `engine_forms` tells it; the text itself when it is neither."""
    arrived_at: float
    model: str = ""
    width: int = 0
    streamed: bool = False
    started_at: float | None = None
    """When it held its slots."""
    first_token_at: float | None = None
    ended_at: float | None = None
    disconnected_at: float | None = None
    freed_at: float | None = None
    """When its slots were free again; later than `disconnected_at` where the engine does not cancel."""
    tokens_made: int = 0
    """Per choice."""
    ending: Ending = Ending.RUNNING
    faults: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Record:
    requests: deque[Seen] = field(default_factory=lambda: deque(maxlen=10_000))
    """The oldest are dropped beyond 10,000."""
    probes: Counter[str] = field(default_factory=Counter)
    """How often each other path was asked."""
    totals: Counter[str] = field(default_factory=Counter)
    """Tokens and requests since the start; the source of /metrics, so a reset leaves it."""
    _last_id: int = 0

    def arrive(self, path: str, headers: dict[str, str], body: Any) -> Seen:
        self._last_id += 1
        seen = Seen(id=self._last_id, path=path, headers=headers, body=body, arrived_at=time.monotonic())
        self.requests.append(seen)
        return seen

    def forget(self) -> None:
        self.requests.clear()
        self.probes.clear()

    def to_json(self) -> dict[str, Any]:
        return {"requests": [asdict(seen) for seen in self.requests], "probes": dict(self.probes)}
