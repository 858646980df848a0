"""The host's CPU, memory, disk and network. Blocking, a millisecond or two; it works on every machine that psutil knows."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from forebay_gpu_agent.facts import Host

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Seconds since boot, over all cores."""

    busy: float
    total: float


class HostReader:
    def __init__(self, disk_path: Path) -> None:
        self._disk_path = disk_path
        self._before: CpuTimes | None = None
        self._silent: set[str] = set()

    def read(self) -> Host:
        memory = self._ask("memory", psutil.virtual_memory)
        disk = self._ask("disk", lambda: psutil.disk_usage(str(self._disk_path)))
        traffic = self._ask("network", _traffic)
        load = self._ask("load", psutil.getloadavg)
        return Host(
            hostname=platform.node(),
            cpu_count=psutil.cpu_count(),
            cpu_percent=self._cpu_percent(),
            load_1m=load[0] if load else None,
            memory_total_bytes=memory.total if memory else None,
            memory_available_bytes=memory.available if memory else None,
            disk_total_bytes=disk.total if disk else None,
            disk_free_bytes=disk.free if disk else None,
            network_received_bytes=traffic[0] if traffic else None,
            network_sent_bytes=traffic[1] if traffic else None,
        )

    def _cpu_percent(self) -> float | None:
        # Not psutil.cpu_percent: it remembers the reading before per thread, and ours come from a new thread each.
        now = self._ask("cpu", lambda: cpu_times(psutil.cpu_times()))
        before, self._before = self._before, now
        return busy_percent(before, now) if before and now else None

    def _ask(self, what: str, question: Callable[[], T]) -> T | None:
        try:
            answer = question()
        except (OSError, psutil.Error) as error:
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


def _traffic() -> tuple[int, int]:
    """(received, sent) bytes since boot, over all interfaces but loopback."""
    interfaces = psutil.net_if_stats()
    counted = [
        counters
        for name, counters in psutil.net_io_counters(pernic=True).items()
        if not (name in interfaces and "loopback" in interfaces[name].flags)
    ]
    return sum(c.bytes_recv for c in counted), sum(c.bytes_sent for c in counted)
