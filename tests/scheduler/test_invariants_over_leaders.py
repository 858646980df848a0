"""Leaders that follow each other while streams break, the bus is away and words are late: what holds all the same.

No engine runs more than it has slots, whoever led and whoever died; each request ends once; and in the end budgets have
counted each settle once. A leader that was replaced goes on until it notices, with the gateways that are still with it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forebay_scheduler import events as ev
from forebay_scheduler.backend import Backend
from forebay_scheduler.request import BackendId, Epoch, GatewayName, KeyId, LedgerId, PoolName, Request, Used, UserId
from forebay_scheduler.rules import Rules
from forebay_scheduler.terms import Budget, BudgetUnit, Limits, UserTerms
from tests.scheduler.doubles import Around, GatewayDouble, LeaderDouble, Running, thorough

pytestmark = pytest.mark.timeout(300)  # what is tried is fixed; how long that takes is the machine's


NAMES = ["g1", "g2", "g3"]
USERS = ["alice", "bob"]
RULES = Rules()
DEFAULT = PoolName("default")
BACKENDS = [
    Backend(BackendId("gpu1"), DEFAULT, frozenset({"m"}), 2, running=0),
    Backend(BackendId("gpu2"), DEFAULT, frozenset({"m"}), 3, running=0),
    Backend(BackendId("cpu1"), DEFAULT, frozenset({"n"}), 2),
]
names = st.sampled_from(NAMES)
indices = st.integers(0, 20)
few = st.sampled_from([1, 2, 100])


class Leading(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.around = Around(RULES, {backend.id: backend for backend in BACKENDS})
        self.last_lease: dict[LeaderDouble, int] = {}
        self.epochs: list[Epoch] = []
        self.is_blind_excused = False
        self.have_died = False
        self.given_up: set[LedgerId] = set()
        self.told_most: dict[LedgerId, int] = {}

    @initialize(count=st.integers(1, 3))
    def begin(self, count: int) -> None:
        self.around.tell(
            ev.PolicyChanged(
                users=tuple(
                    UserTerms(
                        UserId(user),
                        limits=Limits(budgets=(Budget(f"budget of {user}", BudgetUnit.TOKENS, 10**9),)),
                    )
                    for user in USERS
                )
            )
        )
        for name in NAMES[:count]:
            self.around.start(name)
        self.around.exchange()

    def gateway(self, name: str) -> GatewayDouble | None:
        gateway = self.around.gateways.get(name)
        return gateway if gateway is not None and gateway.is_alive else None

    def picked(self, index: int) -> tuple[GatewayDouble, Running] | None:
        running = [(g, one) for g in self.around.gateways.values() for one in g.running.values()]
        return running[index % len(running)] if running else None

    # -- requests

    @rule(
        name=names,
        wants=st.lists(st.tuples(st.sampled_from(USERS), st.sampled_from("mmn"), st.integers(1, 2)), max_size=5),
    )
    def submit(self, name: str, wants: list[Any]) -> None:
        gateway = self.gateway(name)
        for user, model, width in wants if gateway is not None else ():
            request = Request(
                self.around.new_id(),
                UserId(user),
                model,
                self.around.now,
                width=width,
                key=KeyId(f"key of {user}"),
                prompt_tokens=100,
            )
            self.around.submitted[request.ledger_id] = request
            assert gateway is not None
            gateway.ask(request)

    @rule(picks=st.lists(indices, min_size=1, max_size=4), completion=st.integers(0, 300))
    def finish(self, picks: list[int], completion: int) -> None:
        for index in picks:
            picked = self.picked(index)
            if picked is not None:
                gateway, one = picked
                gateway.finish(one.request.ledger_id, Used(100, 0, one.completion_tokens + completion))

    @rule(index=indices, tokens=st.integers(1, 50))
    def answer_flows(self, index: int, tokens: int) -> None:
        picked = self.picked(index)
        if picked is not None:
            gateway, one = picked
            if not one.has_first_token:
                gateway.first_token(one.request.ledger_id)
            gateway.progress(one.request.ledger_id, tokens)
            self.told_most[one.request.ledger_id] = one.completion_tokens

    @rule(index=indices)
    def cancel(self, index: int) -> None:
        waiting = [(g, ledger_id) for g in self.around.gateways.values() for ledger_id in g.waiting]
        if waiting:
            gateway, ledger_id = waiting[index % len(waiting)]
            gateway.cancel_waiting(ledger_id)

    @rule(index=indices, cause=st.sampled_from(list(ev.NackCause)))
    def nack(self, index: int, cause: ev.NackCause) -> None:
        picked = self.picked(index)
        if picked is not None and picked[0].session is not None and not picked[1].has_first_token:
            picked[0].nack(picked[1].request.ledger_id, cause)

    # -- what travels, when it does

    @rule(name=names, most=few)
    def receive(self, name: str, most: int) -> None:
        gateway = self.gateway(name)
        if gateway is not None:
            self.around.receive(gateway, most)

    @rule(name=names, most=few)
    def hear(self, name: str, most: int) -> None:
        gateway = self.gateway(name)
        if gateway is not None:
            self.around.hear(gateway, most)

    @rule()
    def exchange(self) -> None:
        self.around.exchange()

    @rule()
    def beat(self) -> None:
        self.around.seq += 1
        for gateway in self.around.connected():
            gateway.beat(self.around.seq)

    @rule(is_confirmed=st.booleans())
    def store(self, is_confirmed: bool) -> None:
        for leader in list(self.around.leaders):
            self.around.store(leader, is_confirmed=is_confirmed)

    @rule(is_confirmed=st.booleans())
    def save_state(self, is_confirmed: bool) -> None:
        for leader in self.around.leaders:
            leader.save()
            if is_confirmed:
                self.around.confirm_states(leader)

    @rule()
    def the_bus_goes_or_comes(self) -> None:
        bus = self.around.bus
        bus.is_away = not bus.is_away
        for leader in self.around.leaders:
            leader.confirmed.clear()
            leader.to_store = None if bus.is_away else leader.to_store
            leader.apply(ev.BusChanged(bus.is_away))

    # -- gateways

    @rule(name=names)
    def lose(self, name: str) -> None:
        gateway = self.gateway(name)
        if gateway is not None:
            self.around.lose(gateway)

    @rule(name=names)
    def lose_unseen(self, name: str) -> None:
        """The gateway sees its stream end; the leader does not yet."""
        gateway = self.gateway(name)
        if gateway is not None and gateway.session is not None:
            gateway.hang_up()

    @rule(name=names)
    def connect(self, name: str) -> None:
        gateway = self.gateway(name)
        if gateway is not None:
            gateway.connect(self.around.leader)
        elif name not in self.around.gateways:
            self.around.start(name)

    @rule(name=names, is_seen=st.booleans(), is_followed=st.booleans())
    def kill(self, name: str, is_seen: bool, is_followed: bool) -> None:
        gateway = self.gateway(name)
        if gateway is None:
            return
        self.have_died = True
        self.around.receive(gateway)  # it may have taken all that in, and begun it, before it died
        self.around.kill(name)
        if is_seen:
            for leader in self.around.leaders:
                leader.apply(ev.GatewayDied(GatewayName(name), gateway.process[1]))
        if is_followed:
            self.around.start(name)

    @rule(index=indices)
    def an_engine_notices_a_death(self, index: int) -> None:
        left = [(engine, key) for engine in self.around.engines.values() for key in engine.left_at]
        if left:
            engine, key = left[index % len(left)]
            engine.end(key)

    # -- leaders

    @precondition(lambda self: not self.around.bus.is_away)
    @rule(cut_off=st.sets(names), is_arrived=st.booleans())
    def another_leads(self, cut_off: set[str], is_arrived: bool) -> None:
        """Those who are cut off from it stay with the one before, which does not know yet."""
        around = self.around
        if is_arrived:
            around.store(around.leader, is_confirmed=False)
        while len(around.leaders) > 1:
            around.depose(around.leaders[0])
        around.lead()
        for name, gateway in list(around.gateways.items()):
            if gateway.is_alive and name not in cut_off:
                if is_arrived:
                    around.receive(gateway)
                gateway.connect(around.leader)

    @precondition(lambda self: len(self.around.leaders) > 1)
    @rule()
    def the_former_leader_notices(self) -> None:
        self.around.depose(self.around.leaders[0])

    # -- time

    @rule(seconds=st.sampled_from([0.1, 0.4, 1, 3, 3, 12, 110]))
    def time_passes(self, seconds: float) -> None:
        for _ in range(max(1, int(seconds))):
            self.around.pass_time(min(1.0, seconds))
            self.slots_are_never_passed()

    # -- the promises

    @invariant()
    def slots_are_never_passed(self) -> None:
        around = self.around
        for gateway in around.gateways.values():
            if gateway.is_alive and gateway.is_past_fence:
                self.is_blind_excused = True  # its slots there come back by time alone, whatever it does
                # Given up, they are counted as far as they were told of, and that stands.
                self.given_up |= gateway.running.keys() | gateway.unconfirmed.keys()
        if self.is_blind_excused:
            around.excused |= around.blind
        around.check_slots()

    @invariant()
    def ends_are_single(self) -> None:
        self.around.check_ends()

    @invariant()
    def slots_in_use_are_never_fewer_than_none(self) -> None:
        for leader in self.around.leaders:
            for station in leader.policy.dispatch.stations:
                assert station.used >= 0
                assert station.aside >= 0

    def teardown(self) -> None:
        """All comes together again; then what was counted is what was used."""
        around = self.around
        if around.bus.is_away:
            self.the_bus_goes_or_comes()
        while len(around.leaders) > 1:
            around.depose(around.leaders[0])
        for name in NAMES:
            gateway = self.gateway(name)
            if gateway is None:
                around.start(name)
            elif gateway.session is None:
                gateway.connect(around.leader)
        for _ in range(60):
            around.pass_time(1.0)
            for engine in around.engines.values():
                for key in list(engine.left_at):
                    engine.end(key)
            for gateway in around.gateways.values():
                for ledger_id in list(gateway.running):
                    gateway.finish(ledger_id, Used(100, 0, gateway.running[ledger_id].completion_tokens + 7))
            around.exchange()
            if not any(gateway.waiting or gateway.running for gateway in around.gateways.values()):
                break
        for gateway in around.gateways.values():
            assert not gateway.waiting, "somebody starves"
        for gateway in around.connected():
            gateway.end_expired()
        around.pass_time(1.0)
        around.leader.save()
        around.confirm_states(around.leader)
        around.exchange()
        self.ends_are_single()
        for gateway in around.gateways.values():
            assert not gateway.unconfirmed, "what is stored is confirmed"
        dispatch = around.policy.dispatch
        assert len(dispatch.holds) == 0, "slots leak"
        counted = [ledger_id for ledger_id in around.submitted if ledger_id in dispatch.settlements]
        # Of what ran on a gateway that died nobody says that he has read it.
        assert not counted or self.have_died, "ids are forgotten when they were read"
        for standing in dispatch.limits.budgets():
            user = standing.budget_id.removeprefix("budget of ")
            least = most = 0
            for ledger_id, request in around.submitted.items():
                if request.user == user:
                    used = around.used.get(ledger_id)
                    tokens = 0 if used is None else used.prompt_tokens + used.completion_tokens
                    if ledger_id in around.died or ledger_id in self.given_up:
                        # With its gateway died what it would have told.
                        most += max(tokens, 100 + self.told_most.get(ledger_id, 0))
                    else:
                        least += tokens
                        most += tokens
            assert least <= standing.spent <= most, f"{user}: {standing.spent} is not within {least} and {most}"
            assert (standing.reserved, standing.lent) == (0, 0)


TestLeading = Leading.TestCase
TestLeading.settings = thorough(60, 40)
