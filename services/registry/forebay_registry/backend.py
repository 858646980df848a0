"""The words of this service: what an operator wants (`Desired`), what an engine says of itself (`Seen`, `Load`), how a
backend is (`Observed`), and the hosts they run on (`Node`). Frozen facts; deciding about them is left to other modules."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

BackendId = NewType("BackendId", str)
NodeId = NewType("NodeId", str)

DEFAULT_POOL = "default"
ASSUMED_SLOTS = 64
"""Of a backend of which neither the operator nor the engine says how many generations it can write at once: the most to try.
How many are good there the scheduler finds out by use."""


class EngineKind(StrEnum):
    """Which engine speaks: it decides what is asked and where the gauges are."""

    OPENAI = "openai"
    OLLAMA = "ollama"
    VLLM = "vllm"
    LLAMACPP = "llamacpp"
    SGLANG = "sglang"
    ANTHROPIC = "anthropic"
    """Never found out by asking: an operator says so, or its host is a well-known one; as those below."""
    GEMINI = "gemini"
    COHERE = "cohere"
    AZURE = "azure"
    OPENROUTER = "openrouter"


class Condition(StrEnum):
    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    """As the engine calls it, until an operator's names are put in (`model_names`); then as the fleet does."""
    context_length: int | None = None
    """Tokens of one sequence."""
    capabilities: tuple[str, ...] = ()
    """chat, completion, embedding, vision …; empty when the engine does not tell."""
    loaded: bool | None = None
    """Resident in memory, where the engine tells."""
    engine_name: str = ""
    """What the engine calls it; empty: as the fleet does."""


@dataclass(frozen=True, slots=True)
class Load:
    """The engine's own gauges; None is what it does not tell, never zero."""

    running: int | None
    waiting: int | None
    kv_used_fraction: float | None
    measured_at: float

    @property
    def numbers(self) -> tuple[int | None, int | None, float | None]:
        return self.running, self.waiting, self.kv_used_fraction


@dataclass(frozen=True, slots=True)
class Seen:
    """What the engine said last. It outlives the engine's absence and this process."""

    kind: EngineKind | None = None
    slots: int | None = None
    models: tuple[Model, ...] = ()


@dataclass(frozen=True, slots=True)
class Desired:
    """A backend as an operator, or the configuration file, wants it."""

    id: BackendId
    name: str
    url: str
    """Base URL without `/v1` and without a slash at the end."""
    kind: EngineKind | None
    """None: to be found out."""
    pool: str
    slots: int
    """0: what the engine says, else ASSUMED_SLOTS."""
    node_id: NodeId | None
    changed_by: str
    changed_at: float
    enabled: bool = True
    model_names: tuple[tuple[str, str], ...] = ()
    """As `model_names.Names`."""


@dataclass(frozen=True, slots=True)
class Observed:
    condition: Condition = Condition.UNKNOWN
    reason: str = ""
    """One sentence when it is not healthy."""
    checked_at: float | None = None
    seen: Seen = field(default_factory=Seen)
    load: Load | None = None
    """None when the engine does not tell or its last word is too old."""


@dataclass(frozen=True, slots=True)
class Node:
    id: NodeId
    name: str
    enrolled_at: float
    enrolled_by: str


@dataclass(frozen=True, slots=True)
class Kept:
    """Everything that a registry begins with: from Postgres, or from a snapshot."""

    backends: tuple[Desired, ...]
    nodes: tuple[Node, ...]
    seen: dict[BackendId, Seen]
