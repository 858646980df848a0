"""What rules look at: how backends, nodes, GPUs, disks and the registry's own surroundings are at one moment. Pure. What
nobody told is None, never zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from forebay_registry.backend import Condition
from forebay_registry.nodes.troubles import Trouble


@dataclass(frozen=True, slots=True)
class BackendFacts:
    name: str
    pool: str
    node: str
    """Its name; empty: on none that is known."""
    condition: Condition
    since: float
    """Seconds since the epoch."""
    reason: str
    falls: int = 0
    """In the time in which falls are held against it."""
    missing_models: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    in_maintenance: bool = False


@dataclass(frozen=True, slots=True)
class GpuFacts:
    index: int
    name: str
    error: str = ""
    temperature_c: int | None = None
    memory_temperature_c: int | None = None
    clock_reasons: tuple[str, ...] = ()
    memory_used: float | None = None
    """Share, 0 to 1."""
    ecc_uncorrected: int | None = None
    """Since the driver was loaded."""
    repair_pending: bool = False
    repair_failed: bool = False
    last_xid: int | None = None
    xid_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class DiskFacts:
    path: str
    total_bytes: int
    free_bytes: int

    @property
    def used(self) -> float:
        return 1.0 - self.free_bytes / self.total_bytes


@dataclass(frozen=True, slots=True)
class NodeFacts:
    name: str
    is_heard: bool
    """In this registry's time; what is recalled from before says nothing of how it is now."""
    troubles: Mapping[Trouble, str] = field(default_factory=dict)
    driver_error: str = ""
    gpus: tuple[GpuFacts, ...] = ()
    disks: tuple[DiskFacts, ...] = ()
    in_maintenance: bool = False

    @property
    def is_silent(self) -> bool:
        return Trouble.SILENT in self.troubles


@dataclass(frozen=True, slots=True)
class Refused:
    """A command that an agent refused."""

    node: str
    order: str
    why: str
    age_s: float


@dataclass(frozen=True, slots=True)
class Facts:
    backends: tuple[BackendFacts, ...] = ()
    nodes: tuple[NodeFacts, ...] = ()
    refused: tuple[Refused, ...] = ()
    has_postgres: bool = True
    has_nats: bool = True
