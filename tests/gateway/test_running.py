"""Requests that take too long are ended by one look at all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from forebay.errors import ForebayError, Refusal
from forebay_gateway.library.errand import Errand
from forebay_gateway.refused import EngineFailed, TookTooLong
from forebay_gateway.running import Running


@dataclass
class Request:
    ledger_id: bytes
    arrived: float
    asking_since: float = math.inf
    key_id: str = "k"
    is_queued: bool = False
    backend_id: str = "b"
    silent_since: float = 0.0
    has_begun: bool = False
    awaits_engine: bool = False
    told: list[type[ForebayError]] = field(default_factory=list)

    def interrupt(self, error: ForebayError) -> None:
        self.told.append(type(error))

    def cut_off(self, why: Refusal) -> None: ...
    def lose_engine(self, why: str) -> None: ...
    def place_elsewhere(self) -> None: ...


def test_what_takes_too_long_or_waits_too_long_for_a_slot_is_told_and_nothing_else() -> None:
    running = Running()
    requests = {
        "old": Request(b"1", arrived=0.0),
        "waiting": Request(b"2", arrived=50.0, asking_since=80.0),
        "almost": Request(b"3", arrived=50.0, asking_since=89.5),
        "answering": Request(b"4", arrived=50.0),
        "errand": Request(b"5", arrived=Errand.arrived, asking_since=Errand.asking_since),
    }
    for request in requests.values():
        running.add(request)
    running.leave_overdue(100.0, longest_s=100.0, queue_s=10.0)
    assert {name: request.told for name, request in requests.items()} == {
        "old": [EngineFailed],
        "waiting": [TookTooLong],
        "almost": [],
        "answering": [],
        "errand": [],
    }
