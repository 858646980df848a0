"""What a sample says, in the agent's own words. Whatever the host, the hardware or the driver does not tell is None, never
zero: a GPU without a fan is not a GPU whose fan stands still."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class GpuState(StrEnum):
    OK = "ok"
    NO_DRIVER = "no_driver"
    NO_GPU = "no_gpu"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class GpuProcess:
    pid: int
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Gpu:
    index: int
    uuid: str = ""
    name: str = ""
    driver_version: str = ""
    utilization_percent: int | None = None
    memory_utilization_percent: int | None = None
    """Of memory bandwidth."""
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    memory_free_bytes: int | None = None
    temperature_c: int | None = None
    power_mw: int | None = None
    power_limit_mw: int | None = None
    fan_percent: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    processes: tuple[GpuProcess, ...] = ()
    error: str = ""
    """The driver's word when this GPU could not be read, such as GPU_IS_LOST; then no value is given."""


@dataclass(frozen=True, slots=True)
class Gpus:
    state: GpuState
    message: str = ""
    """One sentence when `state` is not OK."""
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True, slots=True)
class Host:
    hostname: str
    cpu_count: int | None
    cpu_percent: float | None
    """0 to 100 over all cores, since the reading before; None in the first."""
    load_1m: float | None
    memory_total_bytes: int | None
    memory_available_bytes: int | None
    disk_total_bytes: int | None
    disk_free_bytes: int | None
    network_received_bytes: int | None
    """Since boot, over all interfaces but loopback."""
    network_sent_bytes: int | None


@dataclass(frozen=True, slots=True)
class Sample:
    node: str
    sequence: int
    """Counts up by one from 1; a gap is a sample that was lost on its way."""
    agent_started_at: float
    sampled_at: float
    """Seconds since the epoch, as is `agent_started_at`."""
    host: Host | None
    """None when the host did not answer in time (a disk that hangs)."""
    gpus: Gpus
