"""The words of this service: what an operator wants (`Desired`), what an engine says of itself (`Seen`, `Load`), how a
backend is (`Observed`), and the hosts they run on (`Node`). Frozen facts; deciding about them is left to other modules."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

from forebay.backend_states import Condition as Condition

BackendId = NewType("BackendId", str)
NodeId = NewType("NodeId", str)

Labels = tuple[tuple[str, str], ...]
"""Name → value, by name, each once."""

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
    slots: int | None = None
    """Generations of it at once, where the engine tells it for each model."""
    size_bytes: int | None = None
    """In memory."""
    vram_bytes: int | None = None
    """Of that, on GPUs."""
    disk_bytes: int | None = None
    expires_at: float | None = field(default=None, compare=False)
    """When the engine unloads it unless it is used: each use moves it, which is no news by itself."""
    parent: str = ""
    """The model that this LoRA adapts, as the engine calls it."""
    family: str = ""
    parameter_size: str = ""
    """As the engine writes it: 8.0B."""
    quantization: str = ""
    """As the engine writes it: Q4_K_M."""
    trained_context_length: int | None = None
    """Tokens; what is served is `context_length`."""
    digest: str = ""
    """Of its files."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What an engine did between two looks at its counters; None is what it does not tell, or what cannot be said because it
    started anew in between."""

    window_s: float
    prompt_tokens_per_s: float | None = None
    completion_tokens_per_s: float | None = None
    prefix_hit_fraction: float | None = None
    """Of the prompts' tokens, those that were found in its cache."""
    preemptions_per_s: float | None = None
    ttft_s: float | None = None
    """Mean, inside the engine."""
    queue_s: float | None = None
    """Mean wait inside the engine."""


@dataclass(frozen=True, slots=True)
class Load:
    """The engine's own gauges; None is what it does not tell, never zero."""

    running: int | None
    waiting: int | None
    kv_used_fraction: float | None
    measured_at: float
    swapped: int | None = None
    """Generations that were moved out of its cache to make room."""
    rates: Rates | None = None
    running_loras: tuple[str, ...] = ()
    """Adapters that are in use."""
    is_stale: bool = False
    """It was measured too long ago: only when is still told."""

    @property
    def numbers(self) -> tuple[int | None, int | None, float | None]:
        return self.running, self.waiting, self.kv_used_fraction

    def grown_stale(self) -> Load:
        return self if self.is_stale else Load(None, None, None, self.measured_at, is_stale=True)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the engine said last. It outlives the engine's absence; what is `lasting` also this process."""

    kind: EngineKind | None = None
    slots: int | None = None
    models: tuple[Model, ...] = ()
    kv_tokens: int | None = None
    """That fit in its cache at once."""
    models_at_once: int | None = None
    """That it keeps in memory, where it swaps them."""
    version: str = ""
    """Of the engine, as it says it."""

    @property
    def lasting(self) -> tuple[object, ...]:
        """What is stored; the rest is told again by the first look."""
        models = tuple((m.name, m.context_length, m.capabilities, m.loaded) for m in self.models)
        return self.kind, self.slots, models


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
    gpu_indices: tuple[int, ...] = ()
    """Of its node, in order; empty: all of them."""
    weight_milli: int = 0
    """For the placement `weighted`; 0: its slots."""
    kv_tokens: int | None = None
    """That fit in its cache at once; None: what the engine says, as the next two."""
    requests_per_minute: int | None = None
    models_at_once: int | None = None
    labels: Labels = ()
    found_by: str = ""
    """Who found it, where it was added by itself: `agent` or `kubernetes`. Empty: somebody wants it."""


@dataclass(frozen=True, slots=True)
class Observed:
    condition: Condition = Condition.UNKNOWN
    reason: str = ""
    """One sentence when it is not healthy."""
    checked_at: float | None = None
    seen: Seen = field(default_factory=Seen)
    load: Load | None = None
    """None when the engine does not tell or its last word is too old."""
    cause: str = ""
    """How the last look ended, in a word."""
    took_s: float | None = None
    """How long the engine took to say that it is there; None when the last look failed."""
    down_s: float = 0.0
    """For how long the looks have been saying that it is unhealthy."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a backend is in the end: what looks, gateways, load and orders make of it together."""

    condition: Condition
    since: float
    """Seconds since the epoch."""
    cause: str
    reason: str
    is_draining: bool = False
    """Nothing new is sent there, by an operator's word or for maintenance."""
    drain_deadline: float | None = None
    drain_forced: bool = False
    drain_reason: str = ""
    maintenance_until: float | None = None


@dataclass(frozen=True, slots=True)
class Node:
    id: NodeId
    name: str
    enrolled_at: float
    """Or described, while it has no agent."""
    enrolled_by: str
    labels: Labels = ()
    note: str = ""
    """For people."""
    has_agent: bool = True
    """False: an operator described it, and no agent has joined as it yet."""


class Pull(StrEnum):
    """What is done about a required model that a backend does not have."""

    AUTO = "auto"
    """It is pulled where the engine can."""
    NEVER = "never"
    """It is only told."""


@dataclass(frozen=True, slots=True)
class Pool:
    """What an operator says of a pool. One that nobody described exists all the same while backends are in it."""

    name: str
    hosts: tuple[str, ...] = ()
    """Host names that its requests come to, lower case, sorted."""
    path_prefix: str = ""
    """Such as /team-a."""
    required_models: tuple[str, ...] = ()
    """Each of its backends should have them; as the fleet calls them, sorted."""
    pull: Pull = Pull.AUTO


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What an operator says of a model, whatever engines say. What is empty or None is not said."""

    name: str
    capabilities: tuple[str, ...] = ()
    context_length: int | None = None
    """Tokens of one sequence."""
    quantization: str = ""
    size_bytes: int | None = None
    """In memory."""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """Everything that a registry begins with: from Postgres, or from a snapshot."""

    backends: tuple[Desired, ...]
    nodes: tuple[Node, ...]
    seen: dict[BackendId, Seen]
    pools: tuple[Pool, ...] = ()
    models: tuple[ModelFacts, ...] = ()
    version: int = 0
    """Of the desired state: it counts the changes."""
