"""Rate and budget lent to gateways with credits: which ones are out, to whom, and when they are over. Pure.

How much is lent and what is left of it is `limits`' to know; here are the names. Like a credit, one that is out stays out
until it is returned, or its process says Hello again or is proven dead: until then something may have been spent on it that
nobody has told us of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from forebay_scheduler.decisions import AllotmentLent
from forebay_scheduler.request import KeyId, Process, SessionId

_MOST_REQUESTS = 1 << 31


@dataclass(frozen=True, slots=True)
class Allotment:
    id: int
    process: Process
    session: SessionId | None
    """None when its session is over."""
    key: KeyId
    requests: int
    tokens: int
    money_micros: int
    is_recalled: bool = False


class Allotments:
    def __init__(self, *, is_on: bool, valid_s: float = 1.0) -> None:
        self._is_on = is_on
        self._valid_s = min(1.0, valid_s)
        self._allotments: dict[int, Allotment] = {}
        self._by_key: dict[tuple[Process, KeyId], int] = {}
        """Those that can be renewed."""
        self._last_id = 0

    def __iter__(self) -> Iterator[Allotment]:
        return iter(self._allotments.values())

    def get(self, process: Process, key: KeyId) -> Allotment | None:
        """The one that the process has for that key and may still use."""
        allotment_id = self._by_key.get((process, key))
        return None if allotment_id is None else self._allotments[allotment_id]

    def lend(
        self,
        process: Process,
        session: SessionId,
        key: KeyId,
        *,
        requests: int,
        tokens: int,
        money_micros: int,
        beat_seq: int,
    ) -> AllotmentLent | None:
        """Answer a heartbeat. None when they are switched off, or when it has one for that key: that can be renewed."""
        if not self._is_on or (process, key) in self._by_key:
            return None
        self._last_id += 1
        allotment = Allotment(self._last_id, process, session, key, requests, tokens, money_micros)
        self._allotments[allotment.id] = allotment
        self._by_key[process, key] = allotment.id
        return self._told(allotment, session, beat_seq)

    def renewable(self, process: Process, session: SessionId, key: KeyId) -> Allotment | None:
        """That it has for that key from this session, and is to be told of again. Not one on which very much was lent: it
        runs out, and the next begins anew, since the wire has 32 bits for requests."""
        allotment = self.get(process, key)
        if not self._is_on or allotment is None or allotment.session != session or allotment.is_recalled:
            return None
        return allotment if allotment.requests < _MOST_REQUESTS else None

    def renew(
        self, allotment: Allotment, session: SessionId, beat_seq: int, *, requests: int, tokens: int, money_micros: int
    ) -> AllotmentLent:
        """It is valid for longer, and so much more is lent on it. Its amounts are counted from when it was first lent."""
        if requests or tokens or money_micros:
            allotment = self._allotments[allotment.id] = replace(
                allotment,
                requests=allotment.requests + requests,
                tokens=allotment.tokens + tokens,
                money_micros=allotment.money_micros + money_micros,
            )
        return self._told(allotment, session, beat_seq)

    def recall(self, key: KeyId) -> list[AllotmentLent]:
        """Ask back what is out for that key, each once: its limits changed, it was revoked, or others need it."""
        told: list[AllotmentLent] = []
        for allotment in list(self):
            if allotment.key == key and allotment.session is not None and not allotment.is_recalled:
                self._allotments[allotment.id] = replace(allotment, is_recalled=True)
                told.append(self._told(allotment, allotment.session, 0, is_recall=True))
        return told

    def returned(self, process: Process, allotment_id: int) -> Allotment | None:
        """Nothing more is spent on it, and all that was is told. Twice is once."""
        allotment = self._allotments.get(allotment_id)
        if allotment is None or allotment.process != process:
            return None
        self._end(allotment)
        return allotment

    def lose(self, process: Process) -> None:
        """Its session is over: it may go on spending until that is no longer valid."""
        for allotment in self._of(process):
            self._allotments[allotment.id] = replace(allotment, session=None)
            self._by_key.pop((process, allotment.key), None)

    def forget(self, process: Process) -> list[Allotment]:
        """It says Hello again (its settles with it), is proven dead or has left. Returns what is out no more."""
        over = self._of(process)
        for allotment in over:
            self._end(allotment)
        return over

    def _of(self, process: Process) -> list[Allotment]:
        return [allotment for allotment in self if allotment.process == process]

    def _end(self, allotment: Allotment) -> None:
        del self._allotments[allotment.id]
        if self._by_key.get((allotment.process, allotment.key)) == allotment.id:
            del self._by_key[allotment.process, allotment.key]

    def _told(
        self, allotment: Allotment, session: SessionId, beat_seq: int, *, is_recall: bool = False
    ) -> AllotmentLent:
        return AllotmentLent(
            session,
            allotment.id,
            allotment.key,
            allotment.requests,
            allotment.tokens,
            allotment.money_micros,
            0.0 if is_recall else self._valid_s,
            beat_seq,
            is_recall,
        )
