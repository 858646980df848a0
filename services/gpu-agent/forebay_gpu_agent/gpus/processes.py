"""The processes that hold a GPU's memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psutil
import pynvml

from forebay_gpu_agent.facts import GpuProcess
from forebay_gpu_agent.gpus.asking import ask

MOST_PROCESSES = 200
"""Named per GPU, so that a sample stays far below what NATS carries."""
_NAME_BYTES = 48


class Names:
    """What the programs are called. Asked once per process; one thread at a time."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}

    def of(self, pid: int) -> str:
        """Empty where it is over, another user's who hides it, or in another container's numbering."""
        if pid not in self._known:
            self._known[pid] = _name(pid)
        return self._known[pid]

    def forget_all_but(self, pids: Iterable[int]) -> None:
        """A number is given to another process one day."""
        kept = set(pids)
        self._known = {pid: name for pid, name in self._known.items() if pid in kept}


def read_processes(handle: Any, instances: Mapping[int, Any], names: Names) -> list[GpuProcess]:
    """Those that compute and those that draw, an engine on Vulkan counting as the latter. `instances`: MIG index → handle;
    where there are some, the GPU itself tells processes to root only, and not what they run on."""
    if not instances:
        return _of(handle, names, None)
    return [process for index, part in instances.items() for process in _of(part, names, index)]


def the_largest(processes: Sequence[GpuProcess]) -> tuple[tuple[GpuProcess, ...], int]:
    """Those with the most memory, by pid, and how many were left out."""
    by_memory = sorted(processes, key=lambda p: (-(p.memory_bytes or 0), p.pid, p.mig_index or 0))
    kept = sorted(by_memory[:MOST_PROCESSES], key=lambda p: (p.pid, p.mig_index or 0))
    return tuple(kept), len(processes) - len(kept)


def _of(handle: Any, names: Names, mig_index: int | None) -> list[GpuProcess]:
    found: dict[int, GpuProcess] = {}
    # By version: for a driver older than 510 the functions without one raise what is no NVMLError.
    for question in (pynvml.nvmlDeviceGetComputeRunningProcesses_v3, pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3):
        processes: Iterable[Any] = ask(question, handle) or ()
        for process in processes:
            if process.pid not in found:
                found[process.pid] = GpuProcess(process.pid, process.usedGpuMemory, names.of(process.pid), mig_index)
    return list(found.values())


def _name(pid: int) -> str:
    try:
        name = psutil.Process(pid).name()
    except (psutil.Error, OSError, ValueError, OverflowError):
        return ""
    return name.encode(errors="replace")[:_NAME_BYTES].decode(errors="ignore")
