"""What a sample says, in the agent's own words. Whatever the host, the hardware or the driver does not tell is None, never
zero: a GPU without a fan is not a GPU whose fan stands still."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

GPU_IDLE = "gpu_idle"
"""The one reason of slow clocks that is none of concern: nothing runs."""


class GpuState(StrEnum):
    OK = "ok"
    NO_DRIVER = "no_driver"
    NO_GPU = "no_gpu"
    FAILED = "failed"


def as_utf8(text: str) -> str:
    """What the system tells in bytes that are no UTF-8 becomes '?': no other text can be sent."""
    return text.encode(errors="replace").decode()


@dataclass(frozen=True, slots=True)
class GpuProcess:
    pid: int
    memory_bytes: int | None
    name: str = ""
    """Of its program; empty where this agent may not know it."""
    mig_index: int | None = None
    """The MIG instance that it runs on."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What does not change while the driver is loaded."""

    pci_bus_id: str = ""
    serial: str = ""
    compute_capability: str = ""
    """Such as 9.0."""
    cuda_version: str = ""
    """The newest that the driver runs, such as 12.8."""
    max_sm_clock_mhz: int | None = None
    max_memory_clock_mhz: int | None = None
    max_pcie_generation: int | None = None
    max_pcie_width: int | None = None


@dataclass(frozen=True, slots=True)
class Wear:
    """Errors of the memory and what was done about them. Volatile: since the driver was loaded; aggregate: of its life."""

    ecc_enabled: bool | None = None
    ecc_corrected_volatile: int | None = None
    ecc_uncorrected_volatile: int | None = None
    ecc_corrected_aggregate: int | None = None
    ecc_uncorrected_aggregate: int | None = None
    retired_pages_corrected: int | None = None
    retired_pages_uncorrected: int | None = None
    remapped_rows_corrected: int | None = None
    remapped_rows_uncorrected: int | None = None
    repair_pending: bool | None = None
    """A page or a row is taken out of use at the next reset."""
    repair_failed: bool | None = None
    """A row could not be remapped."""


@dataclass(frozen=True, slots=True)
class Links:
    """PCIe and NVLink, seen from the GPU. `None` for NVLink: there is none."""

    pcie_tx_bytes_per_s: int | None = None
    pcie_rx_bytes_per_s: int | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    nvlink_tx_bytes_per_s: int | None = None
    """Payload over all links, since the reading before."""
    nvlink_rx_bytes_per_s: int | None = None
    nvlinks: int | None = None
    nvlinks_active: int | None = None


@dataclass(frozen=True, slots=True)
class MigInstance:
    """A part of a GPU that programs take for a GPU."""

    index: int
    uuid: str = ""
    name: str = ""
    """With its profile, such as 1g.10gb."""
    gpu_instance: int | None = None
    compute_instance: int | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    memory_free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Xids:
    """Errors that the driver reported of a GPU since the agent looks."""

    count: int = 0
    last: int | None = None
    last_at: float | None = None
    """Seconds since the epoch."""


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
    memory_temperature_c: int | None = None
    power_mw: int | None = None
    power_limit_mw: int | None = None
    energy_mj: int | None = None
    """Since the driver was loaded."""
    fan_percent: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    performance_state: int | None = None
    """0 the fastest, 15 the slowest."""
    clock_reasons: tuple[str, ...] = ()
    """Why the clocks are below their most: gpu_idle, sw_power_cap, hw_thermal_slowdown, …"""
    traits: Traits = Traits()
    wear: Wear = Wear()
    links: Links = Links()
    mig_enabled: bool | None = None
    mig_instances: tuple[MigInstance, ...] = ()
    processes: tuple[GpuProcess, ...] = ()
    processes_left_out: int = 0
    """Those with the least memory."""
    xids: Xids | None = None
    """None where the driver does not let us look."""
    error: str = ""
    """The driver's word when this GPU could not be read, such as GPU_IS_LOST; then no value is given."""


@dataclass(frozen=True, slots=True)
class Gpus:
    state: GpuState
    message: str = ""
    """One sentence when `state` is not OK."""
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True, slots=True)
class Disk:
    path: str
    total_bytes: int
    free_bytes: int
    """For ordinary users."""


@dataclass(frozen=True, slots=True)
class Temperature:
    name: str
    """Chip and sensor."""
    celsius: float


@dataclass(frozen=True, slots=True)
class HostPower:
    """What is drawn, in mW."""

    server_mw: int | None = None
    source: str = ""
    """Who says so: acpi, ipmi."""
    cpu_mw: int | None = None
    """By the processors alone, since the reading before."""


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
    network_received_bytes_per_s: int | None = None
    """Since the reading before."""
    network_sent_bytes_per_s: int | None = None
    load_5m: float | None = None
    load_15m: float | None = None
    swap_total_bytes: int | None = None
    swap_used_bytes: int | None = None
    booted_at: float | None = None
    """Seconds since the epoch, by this host's clock."""
    boot_id: str = ""
    """Another one after each boot."""
    machine_id: str = ""
    """The same for as long as this machine is installed; a hash."""
    system: str = ""
    disks: tuple[Disk, ...] = ()
    temperatures: tuple[Temperature, ...] = ()
    power: HostPower = HostPower()


@dataclass(frozen=True, slots=True)
class Reading:
    """This node, as it was looked at once."""

    at: float
    """Seconds since the epoch."""
    host: Host | None
    """None when the host did not answer in time (a disk that hangs)."""
    gpus: Gpus


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
    busy: bool = False
    """A GPU works."""
    interval_s: float = 0.0
    """The next sample comes within this; 0 for one that is taken alone."""
