"""How often this node is told of: often while a GPU works or something changes, seldom while nothing happens. The node is
looked at all the time, which costs little; only what others should know is sent. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import StrEnum

from forebay_gpu_agent.facts import GPU_IDLE, Gpu, Gpus, Reading

BUSY_SHARE_OF_POWER = 0.5
"""Of its limit. An engine that holds a model and does nothing keeps most GPUs at a sixth to 45 % of it."""
MEMORY_STEP = 0.02
"""A change of the memory in use, as a share of it all, that is told at once: a model that loads or goes."""


@dataclass(frozen=True, slots=True)
class Pace:
    busy_s: float
    """From one look at the node to the next, and from one sample to the next while it works."""
    idle_s: float
    """The longest that nothing is told. The registry counts on it."""

    def within_s(self, is_busy: bool) -> float:
        """When the next sample comes at the latest."""
        return self.busy_s if is_busy else self.idle_s


class Reason(StrEnum):
    """Why a sample is sent; also the label of its metric."""

    FIRST = "first"
    BUSY = "busy"
    CHANGED = "changed"
    ASKED = "asked"
    KEEP_ALIVE = "keep_alive"


@dataclass(frozen=True, slots=True)
class Told:
    """What was told last, as far as the next decision needs it."""

    at: float
    """Seconds on a clock that never goes back."""
    is_busy: bool
    news: Hashable
    memory: tuple[tuple[str, int, int], ...]
    """uuid, used and total bytes of each GPU and each MIG instance."""


def decide(told: Told | None, now_told: Told, pace: Pace, *, is_asked: bool = False) -> Reason | None:
    """Why what is seen now is to be told, None when it is not. `now_told`: what would be told, at this moment."""
    if told is None:
        return Reason.FIRST
    if is_asked:
        return Reason.ASKED
    if now_told.is_busy != told.is_busy or now_told.news != told.news or _has_moved(told.memory, now_told.memory):
        return Reason.CHANGED
    if now_told.is_busy:
        return Reason.BUSY
    # Looks come a little early or late: one that is due within half a step is due now.
    is_due = now_told.at - told.at >= pace.idle_s - pace.busy_s / 2
    return Reason.KEEP_ALIVE if is_due else None


def telling(reading: Reading, at: float) -> Told:
    gpus = reading.gpus
    return Told(at, is_busy(gpus), _news(reading), tuple(part for gpu in gpus.gpus for part in _memory(gpu)))


def is_busy(gpus: Gpus) -> bool:
    return any(works(gpu) for gpu in gpus.gpus)


def works(gpu: Gpu) -> bool:
    """Something is computed there. A process that merely holds memory is no work, where the driver tells them apart."""
    if gpu.utilization_percent:
        return True
    if gpu.power_mw and gpu.power_limit_mw and gpu.power_mw >= BUSY_SHARE_OF_POWER * gpu.power_limit_mw:
        return True
    is_told = gpu.utilization_percent is not None or GPU_IDLE in gpu.clock_reasons
    return bool(gpu.processes) and not is_told  # a GPU that MIG has cut tells no utilisation


def _news(reading: Reading) -> Hashable:
    host, gpus = reading.host, reading.gpus
    where = (host.hostname, host.machine_id, host.boot_id) if host else ()
    return where, gpus.state, gpus.message, tuple(_news_of(gpu) for gpu in gpus.gpus)


def _news_of(gpu: Gpu) -> Hashable:
    return (
        gpu.uuid,
        gpu.error,
        gpu.driver_version,
        gpu.wear,
        gpu.mig_enabled,
        tuple(instance.uuid for instance in gpu.mig_instances),
        tuple(process.pid for process in gpu.processes),
        tuple(reason for reason in gpu.clock_reasons if reason != GPU_IDLE),
        gpu.xids,
        gpu.links.nvlinks_active,
    )


def _memory(gpu: Gpu) -> list[tuple[str, int, int]]:
    parts = [(gpu.uuid, gpu.memory_used_bytes, gpu.memory_total_bytes)]
    parts += [(part.uuid, part.memory_used_bytes, part.memory_total_bytes) for part in gpu.mig_instances]
    return [(uuid, used, total) for uuid, used, total in parts if used is not None and total is not None]


def _has_moved(before: tuple[tuple[str, int, int], ...], now: tuple[tuple[str, int, int], ...]) -> bool:
    if [uuid for uuid, _, _ in before] != [uuid for uuid, _, _ in now]:
        return True
    pairs = zip(before, now, strict=True)
    return any(abs(used - used_before) > MEMORY_STEP * total for (_, used_before, _), (_, used, total) in pairs)
