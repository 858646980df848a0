"""When who is refused is told to come back, while much else happens between two ticks of the clock."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from forebay.errors import Refusal
from forebay_scheduler import events as ev
from forebay_scheduler.backend import Backend
from forebay_scheduler.decisions import CeilingTold, Decision, Grant, Reject, StoreCeilings
from forebay_scheduler.placing.placement import PlacingRules
from forebay_scheduler.policy import Policy
from forebay_scheduler.request import Epoch, GatewayName, PoolName, Used
from forebay_scheduler.rules import Rules
from tests.scheduler.one_gateway import GPU1, GPU2, S1, want

_WAIT_AT_MOST = 8
_STEPS_A_SECOND, _TICK_EVERY, _ANSWER_STEPS = 50, 10, 50
_CAME_AT = 60 * _STEPS_A_SECOND


class Rush:
    """Two slots on which each answer takes a second: eight of one user's may wait."""

    def __init__(self) -> None:
        rules = Rules(queue_per_user=_WAIT_AT_MOST, placing=PlacingRules(explored=0.0, jitter=0.0))
        self._policy = Policy(rules, Epoch(3, 4), 0.0)
        self._ends: dict[int, list[Grant]] = {}
        self.refused: list[Reject] = []
        self.waited_s: list[float] = []
        fleet = tuple(Backend(name, PoolName("default"), frozenset({"m"}), 1) for name in (GPU1, GPU2))
        self._say(0, ev.FleetChanged(fleet), ev.SessionOpened(S1, GatewayName("g1"), 2))

    def step(self, number: int, *, comers: int = 1) -> None:
        now = number / _STEPS_A_SECOND
        for grant in self._ends.pop(number, []):
            self._say(number, ev.Settle(S1, grant.ledger_id, grant.lease, used=Used(100, 0, 50)))
        for comer in range(comers):
            self._say(number, ev.Submit(S1, want(f"{number:05}{comer:03}", arrived_at=now)))
        if number % _TICK_EVERY == 0:
            self._say(number, ev.Tick())

    def _say(self, number: int, *events: ev.Event) -> None:
        decisions: list[Decision] = self._policy.apply(events, number / _STEPS_A_SECOND)
        while decisions:
            answers: list[ev.Event] = []
            for decision in decisions:
                match decision:
                    case Grant():
                        self._ends.setdefault(number + _ANSWER_STEPS, []).append(decision)
                        self.waited_s.append(decision.queued_s)
                    case Reject():
                        self.refused.append(decision)
                    case StoreCeilings(ticket):
                        answers.append(ev.CeilingsStored(ticket))
                    case CeilingTold(session, backend, _, _, version):
                        answers.append(ev.CeilingAcked(session, backend, version, 0))
            decisions = self._policy.apply(answers, number / _STEPS_A_SECOND) if answers else []


def test_who_finds_the_queue_full_is_told_how_long_those_in_it_wait_and_never_less() -> None:
    rush = Rush()
    for number in range(1, 60 * _STEPS_A_SECOND):
        rush.step(number)
    waited_s, told_s = rush.waited_s[-1], _told_s(rush.refused[-10 * _STEPS_A_SECOND :])
    assert {one.reason for one in rush.refused} == {Refusal.QUEUE_FULL}
    assert abs(waited_s - _WAIT_AT_MOST / 2) < 0.6, "eight wait for two slots of a second each"
    assert abs(min(told_s) - waited_s) < 0.6
    assert max(told_s) < 2 * (waited_s + 0.6), "as many places as may wait, told one after the other, and once more"


def test_of_a_crowd_that_comes_back_when_told_twice_as_many_find_room_as_may_wait() -> None:
    rush, comes_back = Rush(), Counter[int]()
    for number in range(1, _CAME_AT):
        is_busy = number < _CAME_AT / 2  # long enough to see how fast the queue moves
        rush.step(number, comers=int(is_busy or number % _STEPS_A_SECOND == 0))
    rush.refused.clear()
    begun = len(rush.waited_s)
    rush.step(_CAME_AT, comers=4 * _WAIT_AT_MOST)
    for after_s in _told_s(rush.refused):
        comes_back[_CAME_AT + math.ceil(after_s * _STEPS_A_SECOND)] += 1
    for number in range(_CAME_AT + 1, 2 * _CAME_AT):
        rush.step(number, comers=comes_back[number])
    served = len(rush.waited_s) - begun
    assert served >= 3 * _WAIT_AT_MOST, (
        f"those who found room at once, and twice as many: {served} of {4 * _WAIT_AT_MOST}"
    )


def _told_s(refused: Sequence[Reject]) -> list[float]:
    told = [one.retry_after_s for one in refused if one.retry_after_s is not None]
    assert len(told) == len(refused)
    return told
