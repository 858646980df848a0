"""The host: CPU, memory, disks, network, heat, power. Blocking, a millisecond or two; it works on every machine that psutil
knows."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from forebay_gpu_agent.facts import Host, Temperature, as_utf8
from forebay_gpu_agent.host_disks import mounted, read_disks
from forebay_gpu_agent.host_identity import read_identity
from forebay_gpu_agent.host_power import PowerReader
from forebay_gpu_agent.rates import Rates

log = logging.getLogger(__name__)

T = TypeVar("T")

SELDOM_S = 10.0
"""How often that is read which costs more and changes slowly: heat, and what is mounted."""
MOST_TEMPERATURES = 32


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Seconds since boot, over all cores."""

    busy: float
    total: float


class HostReader:
    def __init__(
        self,
        disk_path: Path,
        disk_paths: Sequence[Path] = (),
        *,
        monotonic: Callable[[], float] = time.monotonic,
        power: PowerReader | None = None,
    ) -> None:
        """`disk_path`: whose file system is told as the node's; `disk_paths`: others that matter, besides all local ones."""
        self._disk_path = disk_path
        self._disk_paths = (disk_path, *disk_paths)
        self._monotonic = monotonic
        self._power = power or PowerReader(monotonic=monotonic)
        self._identity = read_identity()
        self._before: CpuTimes | None = None
        self._rates = Rates()
        self._silent: set[str] = set()
        self._seldom_at: float | None = None
        self._mounted: list[Path] = []
        self._temperatures: tuple[Temperature, ...] = ()

    def read(self) -> Host:
        at = self._monotonic()
        self._read_seldom(at)
        memory = self._ask("memory", psutil.virtual_memory)
        swap = self._ask("swap", psutil.swap_memory)
        disk = self._ask("disk", lambda: psutil.disk_usage(str(self._disk_path)))
        received, sent = self._ask("network", _traffic) or (None, None)
        load = self._ask("load", psutil.getloadavg) or (None, None, None)
        return Host(
            hostname=as_utf8(platform.node()),
            cpu_count=psutil.cpu_count(),
            cpu_percent=self._cpu_percent(),
            load_1m=load[0],
            load_5m=load[1],
            load_15m=load[2],
            memory_total_bytes=memory.total if memory else None,
            memory_available_bytes=memory.available if memory else None,
            swap_total_bytes=swap.total if swap else None,
            swap_used_bytes=swap.used if swap else None,
            disk_total_bytes=disk.total if disk else None,
            disk_free_bytes=disk.free if disk else None,
            disks=self._ask("disks", lambda: read_disks(self._disk_paths, self._mounted)) or (),
            network_received_bytes=received,
            network_sent_bytes=sent,
            network_received_bytes_per_s=self._rates.per_s("received", received, at),
            network_sent_bytes_per_s=self._rates.per_s("sent", sent, at),
            booted_at=self._ask("boot", psutil.boot_time),
            boot_id=self._identity.boot_id,
            machine_id=self._identity.machine_id,
            system=self._identity.system,
            temperatures=self._temperatures,
            power=self._power.read(),
        )

    def _read_seldom(self, at: float) -> None:
        if self._seldom_at is not None and at - self._seldom_at < SELDOM_S:
            return
        self._seldom_at = at
        self._mounted = self._ask("mounts", mounted) or []
        sensors = getattr(psutil, "sensors_temperatures", None)  # psutil has it on Linux and FreeBSD only
        self._temperatures = hottest(self._ask("temperatures", sensors) or {}) if sensors else ()

    def _cpu_percent(self) -> float | None:
        # Not psutil.cpu_percent: it remembers the reading before per thread, and ours come from a new thread each.
        now = self._ask("cpu", lambda: cpu_times(psutil.cpu_times()))
        before, self._before = self._before, now
        return busy_percent(before, now) if before and now else None

    def _ask(self, what: str, question: Callable[[], T]) -> T | None:
        try:
            answer = question()
        # The second and third: what psutil raises at a file in /sys or /proc that it does not understand.
        except (OSError, ValueError, RuntimeError, psutil.Error) as error:
            if what not in self._silent:
                self._silent.add(what)
                extra = {"action": "host_unreadable", "what": what, "error": str(error)}
                log.warning("the host does not tell this", extra=extra)
            return None
        self._silent.discard(what)
        return answer


def cpu_times(times: Any) -> CpuTimes:
    """From psutil's tuple. Time of guests is in `user` and `nice` already; waiting for a disk is idle time."""
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return CpuTimes(total - times.idle - getattr(times, "iowait", 0.0), total)


def busy_percent(before: CpuTimes, now: CpuTimes) -> float | None:
    """None when no time passed. Counters of single cores may step back by a tick, so the share is held to 0 to 100."""
    passed = now.total - before.total
    if passed <= 0:
        return None
    return min(100.0, max(0.0, 100.0 * (now.busy - before.busy) / passed))


def hottest(sensors: Mapping[str, Sequence[Any]]) -> tuple[Temperature, ...]:
    """The hottest sensor of each chip: a server has one for each of its hundred cores. `sensors`: as psutil tells them; what
    measures nothing shows 0 or less."""
    found = []
    for chip, readings in sorted(sensors.items()):
        top = max(readings, key=lambda reading: reading.current or 0.0, default=None)
        if top is not None and top.current and top.current > 0:
            found.append(Temperature(as_utf8(f"{chip} {top.label}".strip())[:64], round(float(top.current), 1)))
    return tuple(found[:MOST_TEMPERATURES])


def _traffic() -> tuple[int, int]:
    """(received, sent) bytes since boot, over all interfaces but loopback."""
    interfaces = psutil.net_if_stats()
    counted = [
        counters
        for name, counters in psutil.net_io_counters(pernic=True).items()
        if not (name in interfaces and "loopback" in interfaces[name].flags)
    ]
    return sum(c.bytes_recv for c in counted), sum(c.bytes_sent for c in counted)
