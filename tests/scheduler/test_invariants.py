"""Whatever happens in whatever order: the promises that the core keeps to requests. One leader, whose words arrive at once;
gateways, engines and the bus are honest doubles. Changes of leader, and words that are late, have a file of their own."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from forebay_scheduler import events as ev
from forebay_scheduler.backend import Backend
from forebay_scheduler.decisions import Grant
from forebay_scheduler.fairness.fair_queue import Charge, FairQueue
from forebay_scheduler.fairness.tree import Leaf, Node
from forebay_scheduler.inquiry import why_waiting
from forebay_scheduler.lines import Line
from forebay_scheduler.request import (
    BackendId,
    Band,
    GatewayName,
    GroupId,
    KeyId,
    LedgerId,
    PoolName,
    Request,
    Used,
    UserId,
)
from forebay_scheduler.rules import Rules
from forebay_scheduler.terms import GroupTerms, ModelTerms, PoolTerms, UserTerms
from tests.scheduler.doubles import Around, GatewayDouble, LeaderDouble, Running, thorough

pytestmark = pytest.mark.timeout(300)  # what is tried is fixed; how long that takes is the machine's


NAMES = ["g1", "g2"]
USERS = ["alice", "bob", "carol", "dora"]
RULES = Rules(queue_per_user=6, queue_per_pool=14)
DEFAULT, FAR = PoolName("default"), PoolName("far")
BACKENDS = {
    # Two whose engines tell what they run, one that does not, two in another pool.
    "gpu1": Backend(BackendId("gpu1"), DEFAULT, frozenset({"m"}), 2, running=0),
    "gpu2": Backend(BackendId("gpu2"), DEFAULT, frozenset({"m", "n"}), 3, running=0),
    "cpu1": Backend(BackendId("cpu1"), DEFAULT, frozenset({"n"}), 1),
    "far1": Backend(BackendId("far1"), FAR, frozenset({"m"}), 1, running=0),
    "far2": Backend(BackendId("far2"), FAR, frozenset({"m"}), 2, running=0),
}
names = st.sampled_from(NAMES)
indices = st.integers(0, 20)


class Serving(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        facts = {backend.id: backend for backend in BACKENDS.values()}
        self.around = Around(RULES, facts)
        self.around.on_grant = self.check_grant
        self.clocks: dict[tuple[str, ...], float] = {}
        self.failures: Counter[str] = Counter()
        self.resting_until: dict[str, float] = {}
        self.draining: set[str] = set()
        self.granted_on: dict[LedgerId, set[str]] = {}
        self.blamed: dict[LedgerId, set[str]] = {}
        self.paused: set[str] = set()
        self.groups: dict[str, str | None] = {user: None for user in USERS}
        self.parents: dict[str, str | None] = {"law": None, "lab": "law"}
        self.costs: Counter[PoolName] = Counter()
        self.policy = self.around.policy

    @initialize()
    def begin(self) -> None:
        for pool in (DEFAULT, FAR):
            self.watch(self.policy.dispatch.queues.line(pool))
        # No window in the one pool: there the turn is exact. In the other it is up to the window.
        self.tell(pools=(PoolTerms(DEFAULT, locality_window=0),))
        for name in NAMES:
            self.around.start(name)
        self.around.exchange()

    def tell(self, **change: Any) -> None:
        self.around.tell(ev.PolicyChanged(**change))

    # -- whose turn it is

    def watch(self, line: Line) -> None:
        queue = line.queue
        start, settle = queue.start, queue.settle

        def checked_start(request: Request, cost: int) -> Charge:
            self.check_turn(line, request)
            return start(request, cost)

        def counted_settle(charge: Charge, cost: int) -> None:
            self.costs[line.pool] += 0 if charge.is_over else max(0, cost)
            settle(charge, cost)

        queue.start, queue.settle = checked_start, counted_settle  # type: ignore[method-assign]

    def check_turn(self, line: Line, request: Request) -> None:
        """Against the descent that looks at everything: at each level the child with the least virtual time."""
        asking = [(other, path_of(line.queue, other.ledger_id)) for other in line.queue if other.model == request.model]
        waiting = [(other, path) for other, path in asking if not any(node.is_paused for node in path)]
        assert any(other is request for other, _ in waiting), "what is paused waits"
        dispatch = self.policy.dispatch
        are_plain = all(other.width == 1 and not other.excluded for other, _ in waiting)
        if not are_plain or dispatch.slots.short or any(station.kept_for for station in dispatch.stations):
            return  # others may pass those who cannot use what is free
        if Band.SYSTEM in {other.band for other, _ in waiting}:
            waiting = [(other, path) for other, path in waiting if other.band is Band.SYSTEM]
        own = path_of(line.queue, request.ledger_id)
        ahead = 0.0
        for depth, node in enumerate(own):
            beside = {path[depth]: None for _, path in waiting if path[:depth] == own[:depth] and len(path) > depth}
            if depth == 0 and node.name == Band.SYSTEM:
                continue
            ahead += node.vt - min(other.vt for other in beside)
        assert ahead <= line.window + 1e-6, f"{ahead} tokens ahead of who is the least served"
        mine = [other for other, path in waiting if path == own]
        assert request.arrived_at <= min(other.arrived_at for other in mine) or request.attempts, "in order"

    def check_grant(self, leader: LeaderDouble, gateway: GatewayDouble, grant: Grant) -> None:
        request = gateway.waiting.get(grant.ledger_id)
        if request is None:
            # Its nack or submit is on its way, or it was cancelled meanwhile.
            return
        facts = self.around.facts[grant.backend]
        assert facts.is_open
        assert facts.pool == request.pool
        assert request.model in facts.models
        assert grant.backend not in self.draining, "what drains gets nothing"
        assert self.around.now >= self.resting_until.get(grant.backend, 0.0), "what rests gets nothing"
        assert grant.backend not in self.blamed.get(grant.ledger_id, ())
        station = leader.policy.dispatch.stations.get(grant.backend)
        assert station is not None
        assert station.used + station.aside <= facts.slots, "granted into a full backend"

    # -- what gateways do

    @rule(
        name=names,
        wants=st.lists(
            st.tuples(
                st.sampled_from(USERS),
                st.sampled_from(["m", "m", "m", "n"]),
                st.sampled_from([DEFAULT, DEFAULT, DEFAULT, FAR]),
                st.sampled_from([1, 1, 1, 1, 1, 2, 3]),
                st.sampled_from([None, None, None, 4.0]),
                st.sampled_from([Band.STANDARD, Band.STANDARD, Band.INTERACTIVE, Band.BATCH, Band.SYSTEM]),
                st.sampled_from([0, 10, 300]),
                st.sampled_from([(), (1, 2), (1, 3)]),
            ),
            min_size=1,
            max_size=6,
        ),
        is_told_twice=st.booleans(),
    )
    def submit(self, name: str, wants: list[Any], is_told_twice: bool) -> None:
        gateway = self.around.gateways[name]
        if not gateway.is_alive:
            return
        for user, model, pool, width, deadline, band, prompt, hashes in wants:
            self.around.now += 0.001
            request = Request(
                self.around.new_id(),
                UserId(user),
                model,
                self.around.now,
                pool=pool,
                band=band,
                width=width,
                deadline_s=deadline,
                key=KeyId(f"key of {user}"),
                prompt_tokens=prompt,
                prefix_hashes=hashes,
            )
            self.around.submitted[request.ledger_id] = request
            gateway.ask(request)
        if is_told_twice:
            self.around.hear(gateway)
            self.around.receive(gateway)  # what was refused is not asked for again
            for request in list(gateway.waiting.values()):
                if gateway.session is not None:
                    gateway.say(ev.Submit(gateway.session, request))
        self.around.exchange()

    def picked(self, index: int, *, is_connected: bool = False) -> tuple[GatewayDouble, Running] | None:
        running = [
            (gateway, one)
            for gateway in self.around.gateways.values()
            if gateway.session is not None or not is_connected
            for one in gateway.running.values()
        ]
        return running[index % len(running)] if running else None

    @rule(picks=st.lists(indices, min_size=1, max_size=4), completion=st.integers(0, 900), is_success=st.booleans())
    def finish(self, picks: list[int], completion: int, is_success: bool) -> None:
        for index in picks:
            picked = self.picked(index)
            if picked is not None:
                gateway, one = picked
                if is_success:
                    self.note_success(one.claim.backend, one.request.ledger_id)
                gateway.finish(
                    one.request.ledger_id,
                    Used(one.request.prompt_tokens, 0, max(completion, one.completion_tokens)),
                    is_success=is_success,
                )
        self.around.exchange()

    @rule(index=indices, tokens=st.integers(0, 500))
    def answer_flows(self, index: int, tokens: int) -> None:
        picked = self.picked(index)
        if picked is not None:
            gateway, one = picked
            if not one.has_first_token:
                gateway.first_token(one.request.ledger_id)
                self.note_success(one.claim.backend, one.request.ledger_id)
            gateway.progress(one.request.ledger_id, tokens)
            self.around.exchange()

    @rule(index=indices, cause=st.sampled_from(list(ev.NackCause)), retry_after_s=st.sampled_from([0.0, 0.0, 2.0]))
    def nack(self, index: int, cause: ev.NackCause, retry_after_s: float) -> None:
        picked = self.picked(index, is_connected=True)
        if picked is None or picked[1].has_first_token:
            return
        gateway, one = picked
        backend = one.claim.backend
        if cause.blames_backend:
            self.blamed.setdefault(one.request.ledger_id, set()).add(backend)
            self.failures[backend] += 1
            if self.failures[backend] >= RULES.breaker_failures:
                self.resting_until[backend] = self.around.now + RULES.breaker_rest_s
                self.failures[backend] = -100  # from here on only trials tell, and those are not followed
        gateway.nack(one.request.ledger_id, cause, retry_after_s)
        self.around.exchange()

    def note_success(self, backend: str, ledger_id: LedgerId) -> None:
        if self.failures[backend] > 0:
            self.failures[backend] = 0

    @rule(index=indices)
    def cancel(self, index: int) -> None:
        waiting = [(gateway, ledger_id) for gateway in self.around.gateways.values() for ledger_id in gateway.waiting]
        if waiting:
            gateway, ledger_id = waiting[index % len(waiting)]
            gateway.cancel_waiting(ledger_id)
            self.around.exchange()

    @rule()
    def beat(self) -> None:
        self.around.seq += 1
        for gateway in self.around.connected():
            gateway.beat(self.around.seq)
        self.around.exchange()

    @rule(
        name=names,
        what=st.sampled_from(["lose", "lose", "return", "return", "again", "die", "die seen", "restart", "bye"]),
    )
    def disturb(self, name: str, what: str) -> None:
        around, gateway = self.around, self.around.gateways[name]
        self.blamed.clear()  # a Hello does not say who was merely busy: where nothing else is left, all may be tried again
        match what:
            case "lose":
                around.lose(gateway)
            case "return" if gateway.is_alive and gateway.session is None:
                gateway.connect(around.leader)
            case "again" if gateway.is_alive:
                gateway.connect(around.leader)
            case "die" | "die seen" if gateway.is_alive:
                around.kill(name)
                if what == "die seen":
                    around.leader.apply(ev.GatewayDied(GatewayName(name), gateway.process[1]))
            case "restart":
                if gateway.is_alive:
                    around.kill(name)
                around.start(name)
            case "bye" if gateway.session is not None and not gateway.waiting and not gateway.running:
                gateway.say(ev.GatewayLeft(gateway.session))
                around.hear(gateway)
                around.exchange()
                gateway.ceilings.clear()
                gateway.hang_up()
                gateway.is_alive = False
            case _:
                pass
        around.exchange()

    # -- what others do

    @rule(
        name=st.sampled_from(sorted(BACKENDS)),
        change=st.sampled_from([{"healthy": False}, {"enabled": False}, {"slots": 1}, {"slots": 3}, {}, {}, {}]),
    )
    def change_backend(self, name: str, change: dict[str, Any]) -> None:
        backend = BackendId(name)
        was_well = self.around.facts[backend].healthy
        fields = {"healthy": True, "enabled": True, "slots": BACKENDS[name].slots} | change
        if fields["healthy"] and not was_well:
            self.resting_until.pop(name, None)  # a probe found it well
            self.failures[name] = 0
        self.around.set_facts(backend, **fields)
        self.around.exchange()

    @rule(name=st.sampled_from(sorted(BACKENDS)), deadline=st.sampled_from([None, 0.0, 3.0]), is_undone=st.booleans())
    def drain(self, name: str, deadline: float | None, is_undone: bool) -> None:
        (self.draining.discard if is_undone else self.draining.add)(name)
        self.around.leader.apply(ev.DrainAsked(BackendId(name), deadline, is_undone))
        self.around.exchange()

    @rule(
        user=st.sampled_from(USERS),
        group=st.sampled_from([None, "law", "lab"]),
        weight=st.sampled_from([0.0, 0.5, 1.0, 8.0]),
        is_paused=st.sampled_from([False, False, True]),
    )
    def change_user(self, user: str, group: str | None, weight: float, is_paused: bool) -> None:
        self.groups[user] = group
        (self.paused.add if is_paused else self.paused.discard)(user)
        self.tell(
            users=(UserTerms(UserId(user), None if group is None else GroupId(group), weight, is_paused=is_paused),)
        )
        self.around.exchange()

    @rule(
        group=st.sampled_from(["law", "lab"]),
        parent=st.sampled_from([None, "law", "lab"]),
        weight=st.sampled_from([0.0, 1.0, 3.0]),
        is_paused=st.sampled_from([False, False, False, True]),
    )
    def change_group(self, group: str, parent: str | None, weight: float, is_paused: bool) -> None:
        """Also into itself: admin refuses that, and should it come all the same, nothing breaks."""
        (self.paused.add if is_paused else self.paused.discard)(f"group {group}")
        self.parents[group] = parent
        self.tell(
            groups=(
                GroupTerms(GroupId(group), None if parent is None else GroupId(parent), weight, is_paused=is_paused),
            )
        )
        self.around.exchange()

    @rule(weight=st.sampled_from([0.0, 1.0, 4.0]))
    def change_model(self, weight: float) -> None:
        self.tell(models=(ModelTerms("m", weight=weight),))

    @rule(user=st.sampled_from(USERS))
    def remove_user(self, user: str) -> None:
        self.paused.discard(user)
        self.groups[user] = None
        self.tell(removed=(UserId(user),))
        self.around.exchange()
        for gateway in self.around.connected():
            assert not any(request.user == user for request in gateway.waiting.values())

    @rule(seconds=st.sampled_from([0.0, 0.1, 1, 1, 3, 10, 40]))
    def time_passes(self, seconds: float) -> None:
        for _ in range(max(1, int(seconds))):
            self.around.pass_time(min(seconds, 1.0))
            self.around.exchange()

    # -- what always holds

    @invariant()
    def no_engine_runs_more_than_it_has_slots(self) -> None:
        self.around.check_slots()

    @invariant()
    def each_request_ends_once(self) -> None:
        self.around.check_ends()

    @invariant()
    def what_is_held_is_what_runs(self) -> None:
        dispatch, around = self.policy.dispatch, self.around
        held = {one.request.ledger_id: (one.backend, one.slots) for one in dispatch.holds}
        for gateway in around.connected():
            for ledger_id, one in gateway.running.items():
                assert held[ledger_id] == (one.claim.backend, one.request.width)
        out_of_reach = {ledger for g in around.gateways.values() if g.session is None for ledger in g.running}
        known = {ledger for g in around.connected() for ledger in g.running}
        if all(gateway.session is not None for gateway in around.gateways.values()):
            assert held.keys() == known, "slots leak"
        assert known <= held.keys() | out_of_reach
        for station in dispatch.stations:
            assert station.used == sum(slots for backend, slots in held.values() if backend == station.id)
            assert station.running == sum(backend == station.id for backend, _ in held.values())
            for place in station.place_list:
                assert place.used == sum(
                    one.slots for one in dispatch.holds if (one.backend, one.request.model) == (station.id, place.model)
                )

    @invariant()
    def the_queue_is_what_gateways_wait_for(self) -> None:
        queued = Counter(request.ledger_id for request in self.policy.queued())
        waiting = Counter(ledger_id for gateway in self.around.connected() for ledger_id in gateway.waiting)
        assert queued == waiting

    @invariant()
    def costs_add_up_on_every_level(self) -> None:
        dispatch = self.policy.dispatch
        for line in dispatch.queues.lines:
            held = [one for one in dispatch.holds if one.request.pool == line.pool]
            reserved = settled = 0
            for node in every_node(line.queue):
                assert node.reserved >= 0
                assert node.vt < math.inf
                if type(node) is not Leaf:
                    assert node.reserved == sum(child.reserved for child in node.children.values())
                    assert node.settled == node.gone + sum(child.settled for child in node.children.values())
                where = tuple(step.name for step in node.path())
                assert node.clock >= self.clocks.get((line.pool, *where), 0.0) or not where
                self.clocks[line.pool, *where] = node.clock
                if where in ((), (Band.SYSTEM.value,)):
                    reserved += node.reserved
                    settled += node.settled
            assert reserved == sum(one.charge.cost for one in held)
            assert settled == self.costs[line.pool]

    @invariant()
    def no_slot_idles_beside_who_could_use_it(self) -> None:
        dispatch, around = self.policy.dispatch, self.around
        for backend, facts in around.facts.items():
            station = dispatch.stations.get(backend)
            assert station is not None
            free = facts.slots - station.used - station.aside
            if free < 1 or not facts.is_open or dispatch.stations.why_closed(station):
                continue
            # Within one line nobody passes one that is too wide, and beyond a window nobody passes it in others.
            held_up = {
                (request.pool, request.model)
                for gateway in around.connected()
                for request in gateway.waiting.values()
                if request.width > 1 or request.excluded
            }
            for gateway in around.connected():
                for request in gateway.waiting.values():
                    could = (
                        request.pool == facts.pool
                        and request.model in facts.models
                        and request.width <= free
                        and (request.pool, request.model) not in held_up
                        and (gateway.process, backend) not in dispatch.slots.short
                        and not self.is_paused(request)
                        and dispatch.stations.kept_for(request) is None
                    )
                    assert not could, f"{backend} idles: {request}, {why_waiting(dispatch, request)}, {station}"

    def is_paused(self, request: Request) -> bool:
        shares = self.policy.dispatch.shares
        around = map(str, shares.groups_of(request))
        return request.user in self.paused or any(f"group {group}" in self.paused for group in around)

    @invariant()
    def what_is_lent_is_asked_back_where_somebody_waits(self) -> None:
        dispatch = self.policy.dispatch
        waiting = {request.pool for request in self.policy.queued()}
        for backend, facts in self.around.facts.items():
            lost = any(gateway.session is None for gateway in self.around.gateways.values())
            if facts.pool in waiting and not lost:
                assert dispatch.lender.unused_on(backend) == 0

    def teardown(self) -> None:
        """Whoever can be served is served; then everybody goes, and nothing is left behind."""
        around = self.around
        for name in BACKENDS:
            self.draining.discard(name)
            self.around.facts[BackendId(name)] = replace(
                BACKENDS[name], running=None if BACKENDS[name].running is None else 0, measured_at=around.now
            )
        self.resting_until.clear()
        self.blamed.clear()
        self.failures.clear()
        around.excused |= around.facts.keys()
        around.tell_fleet()
        for name in BACKENDS:
            around.leader.apply(ev.DrainAsked(BackendId(name), is_undone=True))
        self.tell(
            users=tuple(UserTerms(UserId(user)) for user in USERS),
            groups=(GroupTerms(GroupId("law")), GroupTerms(GroupId("lab"))),
        )
        self.paused.clear()
        for name in NAMES:
            if not around.gateways[name].is_alive:
                around.start(name)
            elif around.gateways[name].session is None:
                around.gateways[name].connect(around.leader)
        for _ in range(12):
            around.pass_time(1.0)
            for gateway in around.connected():
                for ledger_id in list(gateway.running):
                    gateway.finish(ledger_id, Used(1, 0, 1))
                around.exchange()
            for engine in around.engines.values():
                for key in list(engine.left_at):
                    engine.end(key)
        for _ in range(30):
            if not any(gateway.waiting for gateway in around.gateways.values()):
                break
            around.pass_time(1.0)
            for gateway in around.connected():
                for ledger_id in list(gateway.running):
                    gateway.finish(ledger_id, Used(1, 0, 1))
        around.exchange()
        # What a gateway had taken in while it reached nobody waits for a backend to come, until its time is over.
        waiting = [
            request
            for gateway in around.gateways.values()
            for request in gateway.waiting.values()
            if any(
                facts.pool == request.pool and request.model in facts.models and facts.slots >= request.width
                for facts in around.facts.values()
            )
        ]
        assert not waiting, f"somebody starves: {waiting}"
        for name in NAMES:
            if around.gateways[name].is_alive:
                around.kill(name)
        around.exchange()
        for engine in around.engines.values():
            engine.running.clear()
        for _ in range(round(RULES.fence_s + RULES.fence_margin_s + RULES.quarantine_blind_s) + 2):
            around.pass_time(1.0)
        policy = self.policy
        assert not list(policy.gateways)
        assert not list(policy.queued())
        assert len(policy.dispatch.holds) == 0
        for station in policy.dispatch.stations:
            assert (station.used, station.aside, station.tokens, station.running) == (0, 0, 0, 0)
            assert policy.quarantined_on(station.id) == 0
            assert policy.dispatch.ceilings.unallotted(station.id) == station.facts.slots
        self.each_request_ends_once()
        self.costs_add_up_on_every_level()


def path_of(queue: FairQueue, ledger_id: LedgerId) -> list[Node]:
    node: Node = queue._where[ledger_id].backlog.node
    return node.path()


def every_node(queue: FairQueue) -> list[Node]:
    return [*queue._system.within(), *queue._shared.within()]


TestServing = Serving.TestCase
TestServing.settings = thorough(60, 40)
