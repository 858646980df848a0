"""A scheduler with one gateway, on a clock that a test sets: the bus stores and the gateway acknowledges at once."""

from __future__ import annotations

from forebay_scheduler import events as ev
from forebay_scheduler.backend import Backend
from forebay_scheduler.decisions import CeilingTold, Grant, StoreCeilings
from forebay_scheduler.placing.placement import PlacingRules
from forebay_scheduler.policy import Policy
from forebay_scheduler.request import (
    BackendId,
    Band,
    Epoch,
    GatewayName,
    LedgerId,
    PoolName,
    Request,
    SessionId,
    Used,
    UserId,
)
from forebay_scheduler.rules import Rules

S1, GPU1, GPU2 = SessionId(1), BackendId("gpu1"), BackendId("gpu2")


def want(name: str, user: str = "alice", arrived_at: float = 0.0, band: Band = Band.STANDARD) -> Request:
    return Request(
        LedgerId(name.encode() * 16),
        UserId(user),
        "m",
        arrived_at,
        band=band,
        prompt_tokens=100,
        request_id=f"call-{name}",
        started_at_us=7,
    )


class Place:
    """A scheduler with one gateway, two backends of one slot, and a clock."""

    def __init__(self) -> None:
        self.policy = Policy(Rules(placing=PlacingRules(explored=0.0, jitter=0.0)), Epoch(3, 4), 0.0)
        self.grants: dict[LedgerId, Grant] = {}
        fleet = [Backend(name, PoolName("default"), frozenset({"m"}), 1) for name in (GPU1, GPU2)]
        self.say(0.0, ev.FleetChanged(tuple(fleet)), ev.SessionOpened(S1, GatewayName("g1"), 2))

    def say(self, now: float, *events: ev.Event) -> None:
        decisions = self.policy.apply(events, now)
        while decisions:
            answers: list[ev.Event] = []
            for decision in decisions:
                match decision:
                    case Grant():
                        self.grants[decision.ledger_id] = decision
                    case StoreCeilings(ticket):
                        answers.append(ev.CeilingsStored(ticket))
                    case CeilingTold(session, backend, _, _, version):
                        answers.append(ev.CeilingAcked(session, backend, version, 0))
            decisions = self.policy.apply(answers, now) if answers else []

    def submit(self, now: float, *requests: Request) -> None:
        self.say(now, *(ev.Submit(S1, request) for request in requests))

    def settle(self, now: float, request: Request, tokens: int) -> None:
        lease = self.grants[request.ledger_id].lease
        self.say(now, ev.Settle(S1, request.ledger_id, lease, used=Used(100, 0, tokens)))
