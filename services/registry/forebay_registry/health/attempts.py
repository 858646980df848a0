"""What gateways saw of backends: how many of their attempts failed lately. Pure; hints, which looks confirm or not.

Each gateway is one voice, however many attempts it makes: one that lies, or that alone cannot reach an engine, is outvoted
by others that can."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

SPAN_S = 60.0
LEAST = 5
"""Attempts in the span below which a gateway's share says nothing."""
RESTART_S = 60.0
"""A gateway that said nothing for so long may have been restarted, with whatever clock."""
_MOST_REPORTS = 128
_MOST_GATEWAYS = 256
_MOST_WORKERS = 256


class Fault(StrEnum):
    """What became of attempts of which no reports are taken; also the label of their metric."""

    MALFORMED = "malformed"
    FOREIGN_SUBJECT = "foreign_subject"
    OUT_OF_ORDER = "out_of_order"


@dataclass(frozen=True, slots=True)
class Tally:
    """Of one backend, since the report before."""

    served: int = 0
    refused: int = 0
    broken: int = 0
    failed: int = 0
    silent: int = 0

    @property
    def failures(self) -> int:
        return self.refused + self.broken + self.failed + self.silent


@dataclass(slots=True)
class _Process:
    started_us: int = -1
    sequence: int = 0
    heard_at: float = 0.0


@dataclass(slots=True)
class _Voice:
    processes: dict[int, _Process] = field(default_factory=dict)
    """By the worker's number; 0 is a gateway of one process."""
    reports: dict[str, deque[tuple[float, Tally]]] = field(default_factory=dict)
    """By backend, the oldest first."""


class Attempts:
    def __init__(self) -> None:
        self._voices: dict[str, _Voice] = {}

    def take(
        self,
        gateway: str,
        started_us: int,
        sequence: int,
        tallies: Iterable[tuple[str, Tally]],
        now: float,
        worker: int = 0,
    ) -> Fault | None:
        """One report of a gateway's process, on the monotonic clock. None: it counts."""
        voice = self._voices.get(gateway)
        if voice is None:
            if len(self._voices) >= _MOST_GATEWAYS:
                self._voices.pop(next(iter(self._voices)))
            voice = self._voices[gateway] = _Voice()
        known = voice.processes.get(worker)
        if known is None:
            if len(voice.processes) >= _MOST_WORKERS:
                return Fault.MALFORMED
            known = voice.processes[worker] = _Process()
        is_earlier = started_us < known.started_us or (started_us == known.started_us and sequence <= known.sequence)
        # A gateway whose clock was ahead says after a restart that it started earlier; it was silent for that restart.
        if is_earlier and (started_us == known.started_us or now - known.heard_at < RESTART_S):
            return Fault.OUT_OF_ORDER
        known.started_us, known.sequence, known.heard_at = started_us, sequence, now
        for backend, tally in tallies:
            told = voice.reports.setdefault(backend, deque(maxlen=_MOST_REPORTS))
            told.append((now, tally))
        return None

    def failing(self, backend: str, now: float) -> float | None:
        """The share of failed attempts in the last minute, 0 to 1: the mean over the gateways that made enough of them."""
        shares = []
        for voice in self._voices.values():
            told = voice.reports.get(backend)
            if told is None:
                continue
            while told and now - told[0][0] >= SPAN_S:
                told.popleft()
            failures = sum(tally.failures for _, tally in told)
            made = failures + sum(tally.served for _, tally in told)
            if made >= LEAST:
                shares.append(failures / made)
        return sum(shares) / len(shares) if shares else None

    def forget(self, backend: str) -> None:
        for voice in self._voices.values():
            voice.reports.pop(backend, None)
