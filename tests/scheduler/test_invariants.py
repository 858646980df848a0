"""Whatever happens in whatever order: the promises that the core keeps. Gateways and engines are small honest doubles."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from forebay.errors import Refusal
from forebay_scheduler import decisions as de
from forebay_scheduler import events as ev
from forebay_scheduler.backend import Backend
from forebay_scheduler.policy import Policy
from forebay_scheduler.request import (
    BackendId,
    Claim,
    Epoch,
    GatewayName,
    LedgerId,
    PoolName,
    Request,
    SessionId,
    UserId,
)
from forebay_scheduler.rules import Rules

USERS = ["alice", "bob", "carol"]
GATEWAYS = ["g1", "g2"]
RULES = Rules(queue_per_user=6, queue_per_pool=14)
BACKENDS = {
    # Two whose engines tell what they run, one that does not, one in another pool.
    "gpu1": Backend(BackendId("gpu1"), PoolName("default"), frozenset({"m"}), 2, running=0),
    "gpu2": Backend(BackendId("gpu2"), PoolName("default"), frozenset({"m", "n"}), 3, running=0),
    "cpu1": Backend(BackendId("cpu1"), PoolName("default"), frozenset({"n"}), 1),
    "far1": Backend(BackendId("far1"), PoolName("far"), frozenset({"m"}), 1, running=0),
}


@dataclass
class GatewayDouble:
    """One process: what it waits for and what it runs. It speaks each second while it lives and is connected."""

    name: str
    generation: int = 1
    session: SessionId | None = None
    waiting: dict[LedgerId, Request] = field(default_factory=dict)
    running: dict[LedgerId, Claim] = field(default_factory=dict)
    is_alive: bool = True


class Scheduling(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.count = 0
        self.term = 1
        self.backends = dict(BACKENDS)
        self.gateways = {name: GatewayDouble(name) for name in GATEWAYS}
        self.by_session: dict[SessionId, GatewayDouble] = {}
        self.engines: defaultdict[str, dict[tuple[str, int, LedgerId], int]] = defaultdict(dict)
        """What really runs where, those of dead gateways among them, with its width."""
        self.ends: Counter[LedgerId] = Counter()
        self.submitted: dict[LedgerId, Request] = {}
        self.blamed: set[str] = set()
        self.nacked: set[LedgerId] = set()
        """These may have lost a backend that others can still use, so others may pass them."""
        self.lowered: set[str] = set()
        self.passed: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        """By pool and user who waits there: who was served since it began to wait or was served itself."""
        self.policy = Policy(RULES, Epoch(1, 1), self.now)

    @initialize()
    def begin(self) -> None:
        self.apply(ev.FleetChanged(tuple(self.backends.values())))
        for gateway in self.gateways.values():
            self.hello(gateway)

    # -- the doubles

    def apply(self, *events: ev.Event) -> None:
        for decision in self.policy.apply(events, self.now):
            match decision:
                case de.Grant():
                    self.granted(decision)
                case de.Reject(session, ledger_id, reason):
                    gateway = self.by_session[session]
                    assert ledger_id in gateway.waiting, "refused once, and only while it waits"
                    assert reason is not Refusal.INTERNAL
                    del gateway.waiting[ledger_id]
                    self.ends[ledger_id] += 1
                case de.Orphan(request):
                    assert self.submitted[request.ledger_id].user == request.user
                case _:
                    pass
        waiting = {(request.pool, request.user) for request in self.reachable()}
        for pool, user in [key for key in self.passed if key not in waiting]:
            del self.passed[pool, user]

    def granted(self, grant: de.Grant) -> None:
        gateway = self.by_session[grant.session]
        request = gateway.waiting.pop(grant.ledger_id)
        backend = self.backends[grant.backend]
        assert backend.healthy
        assert backend.enabled
        assert request.model in backend.models
        assert backend.pool == request.pool
        assert grant.backend not in request.excluded
        assert grant.attempt == request.attempts + 1 <= RULES.attempts
        assert self.policy.holds.free(backend) >= 0, "granted into a full backend"
        for other in self.reachable():
            if other.user == request.user and other.model == request.model and other.pool == request.pool:
                assert {request.ledger_id, other.ledger_id} & self.nacked or other.arrived_at >= request.arrived_at, (
                    "not first in, first out"
                )
        self.check_turn(request)
        self.engines[grant.backend][gateway.name, gateway.generation, grant.ledger_id] = request.width
        gateway.running[grant.ledger_id] = Claim(request, grant.backend, grant.lease, grant.attempt)

    def check_turn(self, request: Request) -> None:
        """Nobody is served twice while another waits who could have taken the same slot."""
        for user in USERS:
            lines = [
                r for r in self.reachable() if r.user == user and (r.model, r.pool) == (request.model, request.pool)
            ]
            could_have = bool(lines) and all(r.width == 1 and r.ledger_id not in self.nacked for r in lines)
            if user != request.user and could_have and request.ledger_id not in self.nacked:
                assert request.user not in self.passed[request.pool, user], "served twice before another's turn"
            if user != request.user and lines:
                self.passed[request.pool, user].add(request.user)
        self.passed[request.pool, request.user].clear()

    def reachable(self) -> list[Request]:
        return [r for g in self.gateways.values() if g.session is not None for r in g.waiting.values()]

    def hello(self, gateway: GatewayDouble) -> None:
        self.count += 1
        gateway.session = SessionId(self.count)
        self.by_session[gateway.session] = gateway
        self.passed.clear()  # whoever waited there joins at the back
        self.apply(
            ev.SessionOpened(
                gateway.session,
                GatewayName(gateway.name),
                gateway.generation,
                tuple(gateway.running.values()),
                tuple(gateway.waiting.values()),
            )
        )

    def connected(self) -> list[GatewayDouble]:
        return [g for g in self.gateways.values() if g.session is not None]

    def pick_running(self, index: int) -> tuple[GatewayDouble, Claim] | None:
        all_running = [(g, claim) for g in self.connected() for claim in g.running.values()]
        return all_running[index % len(all_running)] if all_running else None

    def stop_at_engine(self, gateway: GatewayDouble, claim: Claim) -> None:
        key = gateway.name, gateway.generation, claim.request.ledger_id
        self.engines[claim.backend].pop(key, None)

    # -- what may happen

    @rule(
        gateway=st.sampled_from(GATEWAYS),
        wants=st.lists(
            st.tuples(
                st.sampled_from(USERS),
                st.sampled_from(["m", "m", "m", "n"]),
                st.sampled_from(["default", "default", "default", "far"]),
                st.sampled_from([1, 1, 1, 1, 2, 3]),
                st.sampled_from([None, None, None, 4.0]),
                st.sampled_from([0.0, 0.0, 0.0, 0.5]),
            ),
            min_size=1,
            max_size=6,
        ),
    )
    def submit(self, gateway: str, wants: list[tuple[str, str, str, int, float | None, float]]) -> None:
        double = self.gateways[gateway]
        for user, model, pool, width, deadline, age in wants if double.is_alive else ():
            self.count += 1
            self.now += 0.001
            request = Request(
                LedgerId(str(self.count).encode()),
                UserId(user),
                model,
                self.now - age,
                pool=PoolName(pool),
                width=width,
                deadline_s=deadline,
            )
            self.submitted[request.ledger_id] = request
            double.waiting[request.ledger_id] = request
            if double.session is not None:
                self.apply(ev.Submit(double.session, request))
                if request.ledger_id in double.waiting or request.ledger_id in double.running:
                    self.apply(ev.Submit(double.session, request))  # what is sent again changes nothing

    @rule(indices=st.lists(st.integers(0, 20), min_size=1, max_size=4), times=st.integers(1, 2))
    def settle(self, indices: list[int], times: int) -> None:
        for index in indices:
            if (picked := self.pick_running(index)) is not None:
                self.settle_one(*picked, times)

    def settle_one(self, gateway: GatewayDouble, claim: Claim, times: int) -> None:
        assert gateway.session is not None
        self.stop_at_engine(gateway, claim)
        del gateway.running[claim.request.ledger_id]
        self.ends[claim.request.ledger_id] += 1
        self.apply(*[ev.Settle(gateway.session, claim.request.ledger_id, claim.lease)] * times)

    @rule(index=st.integers(0, 20))
    def first_token(self, index: int) -> None:
        if (picked := self.pick_running(index)) is not None:
            gateway, claim = picked
            assert gateway.session is not None
            self.apply(ev.FirstToken(gateway.session, claim.request.ledger_id))

    @rule(index=st.integers(0, 20), cause=st.sampled_from(list(ev.NackCause)))
    def nack(self, index: int, cause: ev.NackCause) -> None:
        if (picked := self.pick_running(index)) is None:
            return
        gateway, claim = picked
        assert gateway.session is not None
        self.blamed.add(claim.backend)
        self.stop_at_engine(gateway, claim)
        ledger_id = claim.request.ledger_id
        del gateway.running[ledger_id]
        self.nacked.add(ledger_id)
        excluded = claim.request.excluded | ({claim.backend} if cause.blames_backend else set())
        gateway.waiting[ledger_id] = Request(
            ledger_id,
            claim.request.user,
            claim.request.model,
            claim.request.arrived_at,
            pool=claim.request.pool,
            width=claim.request.width,
            deadline_s=claim.request.deadline_s,
            excluded=frozenset(excluded),
            attempts=claim.attempt,
        )
        for passed in self.passed.values():
            passed.discard(claim.request.user)  # its turn was in vain, so it comes again
        self.apply(ev.Nack(gateway.session, ledger_id, claim.lease.seq, cause))

    @rule(index=st.integers(0, 20))
    def cancel_waiting(self, index: int) -> None:
        waiting = [(g, r) for g in self.connected() for r in g.waiting.values()]
        if not waiting:
            return
        gateway, request = waiting[index % len(waiting)]
        assert gateway.session is not None
        del gateway.waiting[request.ledger_id]
        self.ends[request.ledger_id] += 1
        self.apply(ev.Cancel(gateway.session, request.ledger_id))

    @rule(
        name=st.sampled_from(GATEWAYS),
        what=st.sampled_from(["lose", "lose", "return", "return", "die", "die seen", "restart", "leader"]),
    )
    def disturb(self, name: str, what: str) -> None:
        match what:
            case "lose":
                self.lose_session(name)
            case "return":
                self.come_back(name)
            case "die":
                self.die(name, is_seen=False)
            case "die seen":
                self.die(name, is_seen=True)
            case "restart":
                self.restart(name)
            case _:
                self.leader_changes(name)

    def lose_session(self, name: str) -> None:
        gateway = self.gateways[name]
        if gateway.session is not None:
            session, gateway.session = gateway.session, None
            self.apply(ev.SessionLost(session))

    def come_back(self, name: str) -> None:
        gateway = self.gateways[name]
        if gateway.is_alive and gateway.session is None:
            self.hello(gateway)

    def die(self, name: str, is_seen: bool) -> None:
        """The process ends; its engines do not know yet. A supervisor may see it."""
        gateway = self.gateways[name]
        if not gateway.is_alive:
            return
        self.give_up_all(gateway)
        gateway.is_alive = False
        session, gateway.session = gateway.session, None
        if session is not None:
            self.apply(ev.SessionLost(session))
        if is_seen:
            self.apply(ev.GatewayDied(GatewayName(name), gateway.generation))

    def restart(self, name: str) -> None:
        gateway = self.gateways[name]
        self.give_up_all(gateway)
        self.gateways[name] = GatewayDouble(name, gateway.generation + 1)
        self.hello(self.gateways[name])

    def give_up_all(self, gateway: GatewayDouble) -> None:
        for ledger_id in [*gateway.waiting, *gateway.running]:
            self.ends[ledger_id] += 1
        gateway.waiting.clear()
        gateway.running.clear()

    @rule(
        name=st.sampled_from(sorted(BACKENDS)),
        change=st.sampled_from([{"healthy": False}, {"enabled": False}, {"slots": 1}, {"slots": 3}, {}, {}, {}]),
    )
    def change_backend(self, name: str, change: dict[str, Any]) -> None:
        slots = change.get("slots", BACKENDS[name].slots)
        if slots < sum(self.engines[name].values()):
            self.lowered.add(name)
        self.change(name, **({"healthy": True, "enabled": True, "slots": BACKENDS[name].slots} | change))

    def change(self, name: str, **fields: Any) -> None:
        self.backends[name] = replace(self.backends[name], **fields)
        self.apply(ev.FleetChanged(tuple(self.backends.values())))

    @rule(index=st.integers(0, 20))
    def engine_notices_the_death(self, index: int) -> None:
        dead = [
            (backend, key)
            for backend, running in self.engines.items()
            for key in running
            if key[:2] != (key[0], self.gateways[key[0]].generation) or not self.gateways[key[0]].is_alive
        ]
        if dead:
            backend, key = dead[index % len(dead)]
            del self.engines[backend][key]

    @rule(seconds=st.sampled_from([1, 1, 3, 10, 40]))
    def time_passes(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1.0
            self.report()
            self.apply(*(ev.Heard(g.session) for g in self.connected() if g.session is not None), ev.Tick())

    def report(self) -> None:
        """The registry asks the engines, each second."""
        for name, backend in self.backends.items():
            if backend.running is not None:
                running = sum(self.engines[name].values())
                self.backends[name] = replace(backend, running=running, measured_at=self.now)
        self.apply(ev.FleetChanged(tuple(self.backends.values())))

    def leader_changes(self, first: str) -> None:
        recovered = self.policy.holdings()
        self.term += 1
        self.policy = Policy(RULES, Epoch(1, self.term), self.now, recovered=recovered)
        for gateway in self.gateways.values():
            gateway.session = None
        self.apply(ev.FleetChanged(tuple(self.backends.values())))
        for name in sorted(GATEWAYS, key=lambda name: name != first):
            if self.gateways[name].is_alive:
                self.hello(self.gateways[name])

    # -- what always holds

    @invariant()
    def engines_that_can_be_asked_never_run_too_much(self) -> None:
        for name, backend in self.backends.items():
            running = sum(self.engines[name].values())
            if running <= backend.slots:
                self.lowered.discard(name)
            if backend.running is not None and name not in self.lowered:
                assert running <= backend.slots, f"{name} runs {running} of {backend.slots}"

    @invariant()
    def every_grant_in_use_is_accounted_and_no_other(self) -> None:
        for name in self.backends:
            backend, holds = BackendId(name), self.policy.holds
            of_connected = sum(
                c.request.width for g in self.connected() for c in g.running.values() if c.backend == name
            )
            assert holds.live_on(backend) >= of_connected, "a grant that its gateway uses is not accounted"
            if len(self.connected()) == len(GATEWAYS):
                assert holds.live_on(backend) == of_connected, "slots leak"

    @invariant()
    def nothing_ends_twice(self) -> None:
        assert all(times == 1 for times in self.ends.values())
        unfinished = {i for g in self.gateways.values() for i in [*g.waiting, *g.running]}
        assert unfinished.isdisjoint(self.ends)
        assert unfinished | set(self.ends) == set(self.submitted)

    @invariant()
    def the_queue_is_what_gateways_wait_for(self) -> None:
        queued = Counter(request.ledger_id for request in self.policy.queued())
        waiting = Counter(request.ledger_id for request in self.reachable())
        assert queued == waiting

    @invariant()
    def no_slot_idles_while_a_request_could_use_it(self) -> None:
        if self.policy.is_recovering:
            return
        for name, backend in self.backends.items():
            if not backend.is_open or name in self.blamed or self.policy.holds.free(backend) < 1:
                continue
            line = [r for r in self.reachable() if r.pool == backend.pool]
            if all(r.width == 1 and r.ledger_id not in self.nacked for r in line):
                assert not any(r.model in backend.models for r in line), f"{name} idles"

    def teardown(self) -> None:
        """In the end everybody goes, and nothing is left behind."""
        for name in GATEWAYS:
            self.die(name, is_seen=False)
        for engine in self.engines.values():
            engine.clear()
        self.time_passes(round(RULES.fence_s + RULES.fence_margin_s + RULES.quarantine_blind_s) + 2)
        for name in self.backends:
            assert self.policy.holds.live_on(BackendId(name)) == 0
            assert self.policy.holds.quarantined_on(BackendId(name)) == 0
        assert not list(self.policy.queued())
        assert not list(self.policy.gateways)
        self.nothing_ends_twice()


TestScheduling = Scheduling.TestCase
TestScheduling.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
