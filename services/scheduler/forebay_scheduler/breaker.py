"""Which backends rest because they failed or asked for a pause. Pure.

A dead engine has the most free slots of all, so without this every request would try it first until a probe notices."""

from __future__ import annotations

from dataclasses import dataclass

from forebay_scheduler.request import BackendId, LedgerId

_LONGEST_REST = 12
"""Times the first rest."""
_LONGEST_PAUSE_S = 30.0


@dataclass(slots=True)
class _Record:
    failures: int = 0
    rests: int = 0
    until: float = float("-inf")
    is_on_trial: bool = False
    trial: LedgerId | None = None


class Breaker:
    """Closed, resting, or on trial: after a rest one request is tried, and its fate decides."""

    def __init__(self, failures: int, rest_s: float) -> None:
        self._failures = failures
        self._rest_s = rest_s
        self._records: dict[BackendId, _Record] = {}

    def allows(self, backend: BackendId, now: float) -> bool:
        record = self._records.get(backend)
        return record is None or (now >= record.until and record.trial is None)

    def is_watched(self, backend: BackendId) -> bool:
        """Something happened there that a success has not made up for."""
        return backend in self._records

    def rests_until(self, backend: BackendId) -> float:
        """When it may be tried again; while a trial runs, nobody knows."""
        record = self._records[backend]
        return record.until if record.trial is None else float("inf")

    def note_grant(self, backend: BackendId, ledger_id: LedgerId) -> bool:
        """True when this grant is a trial, after which the backend takes no other until it is over."""
        record = self._records.get(backend)
        if record is None or not record.is_on_trial:
            return False
        record.trial = ledger_id
        return True

    def note_success(self, backend: BackendId, ledger_id: LedgerId) -> None:
        record = self._records.get(backend)
        if record is None:
            return
        if not record.is_on_trial:
            record.failures = 0  # a pause goes on: it was asked for while others were being served
        elif record.trial == ledger_id:
            del self._records[backend]

    def note_end(self, backend: BackendId, ledger_id: LedgerId) -> None:
        """Over without a verdict, such as a client that went: the next request is the trial."""
        record = self._records.get(backend)
        if record is not None and record.trial == ledger_id:
            record.trial = None

    def note_failure(self, backend: BackendId, ledger_id: LedgerId, now: float) -> None:
        record = self._records.setdefault(backend, _Record())
        if record.is_on_trial and record.trial != ledger_id:
            return  # started before the rest: it tells nothing new, and many of them must not lengthen the rest
        record.failures += 1
        if record.is_on_trial or record.failures >= self._failures:
            record.until = now + self._rest_s * min(2**record.rests, _LONGEST_REST)
            record.rests = min(record.rests + 1, 10)
            record.failures = 0
            record.is_on_trial = True
            record.trial = None

    def pause(self, backend: BackendId, seconds: float, now: float) -> None:
        """It asked for time: not a fault, and no trial follows."""
        record = self._records.setdefault(backend, _Record())
        record.until = max(record.until, now + min(seconds, _LONGEST_PAUSE_S))

    def reset(self, backend: BackendId) -> None:
        """A probe found it well again."""
        self._records.pop(backend, None)

    def keep_only(self, backends: set[BackendId]) -> None:
        for gone in self._records.keys() - backends:
            del self._records[gone]
