"""Small honest doubles of what stands around the core: gateways, engines and the bus, on one clock and without threads.

The gateways use all that they may: ceilings, credits, allotments, and local mode while no leader listens. What is told
travels in order and as late as a test wants; what is lost with a stream is lost for both sides, as the protocol assumes."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from hypothesis import HealthCheck, settings

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
    Lease,
    LedgerId,
    Process,
    Request,
    SessionId,
    Used,
)
from forebay_scheduler.rules import Rules
from forebay_scheduler.saved import NOTHING_SAVED, SavedState

LOCAL_AFTER_S = 2.0
BLIND_ENGINES_NOTICE_S = 8.0
"""An engine that cannot be asked sees within this that its client has gone."""
BY_ITSELF = Epoch(0, 0)


def thorough(examples: int, steps: int = 50) -> settings:
    """So many examples; FOREBAY_THOROUGH=20 makes it twenty times as many (then with --timeout=0)."""
    times = int(os.environ.get("FOREBAY_THOROUGH", "1"))
    return settings(
        max_examples=examples * times,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        stateful_step_count=steps,
    )


@dataclass
class Lent:
    """A credit, as its gateway knows it."""

    told: de.CreditLent
    valid_until: float
    next_lease: int
    in_use: int = 0


@dataclass
class Allotted:
    told: de.AllotmentLent
    valid_until: float
    requests: int = 0
    tokens: int = 0


@dataclass
class Running:
    claim: Claim
    credit: Lent | None = None
    completion_tokens: int = 0
    has_first_token: bool = False
    is_cut: bool = False

    @property
    def request(self) -> Request:
        return self.claim.request


class EngineDouble:
    """What really runs on one backend, whoever started it."""

    def __init__(self) -> None:
        self.running: dict[tuple[Process, LedgerId], int] = {}
        """Slots."""
        self.left_at: dict[tuple[Process, LedgerId], float] = {}
        """When its gateway died."""

    @property
    def slots(self) -> int:
        return sum(self.running.values())

    def end(self, key: tuple[Process, LedgerId]) -> None:
        self.running.pop(key, None)
        self.left_at.pop(key, None)


class BusDouble:
    """Keeps what it is told, from its newest owner alone. It may be away."""

    def __init__(self) -> None:
        self.owner: LeaderDouble | None = None
        self.is_away = False
        self.shards: dict[int, tuple[float, Sequence[de.StoredCeilings]]] = {}
        self.state: tuple[float, SavedState] | None = None

    def write(self, leader: LeaderDouble, order: de.StoreCeilings, now: float) -> bool:
        """False when it has another owner."""
        if self.owner is not leader:
            return False
        self.shards.update({number: (now, shard) for number, shard in order.shards.items()})
        return True

    def ceilings(self, now: float) -> list[de.StoredCeilings]:
        """Of each process all shards together; the more careful word counts."""
        joined: dict[Process, de.StoredCeilings] = {}
        for at, shard in self.shards.values():
            for entry in shard:
                entry = replace(entry, silent_s=entry.silent_s + now - at)
                known = joined.get((entry.gateway, entry.generation))
                joined[entry.gateway, entry.generation] = (
                    entry
                    if known is None
                    else replace(
                        entry,
                        slots={**known.slots, **entry.slots},
                        silent_s=min(known.silent_s, entry.silent_s),
                        is_dead=known.is_dead or entry.is_dead,
                    )
                )
        return list(joined.values())


class LeaderDouble:
    """One term: a policy, and the streams and orders that it thinks it has."""

    def __init__(self, around: Around, policy: Policy) -> None:
        self.around = around
        self.policy = policy
        self.sessions: dict[SessionId, GatewayDouble] = {}
        self.to_store: de.StoreCeilings | None = None
        self.confirmed: deque[int] = deque()
        self.states: deque[int] = deque()

    def apply(self, *events: ev.Event) -> list[de.Decision]:
        around = self.around
        decided = self.policy.apply(events, around.now)
        for decision in decided:
            if isinstance(decision, de.StoreCeilings):
                self.to_store = decision
            elif isinstance(decision, de.Orphan):
                around.orphans[decision.request.ledger_id] += 1
            else:
                gateway = self.sessions.get(decision.session)
                if gateway is not None and gateway.session == decision.session:
                    if isinstance(decision, de.Grant):
                        around.on_grant(self, gateway, decision)
                    gateway.inbox.append(decision)
        return decided

    def save(self) -> None:
        """To the bus; it may have another owner."""
        number, state = self.policy.save()
        if self.around.bus.owner is self and not self.around.bus.is_away:
            self.around.bus.state = self.around.now, replace(state, stored_at_us=self.around.wall_us)
            self.states.append(number)


class GatewayDouble:
    """One process: what waits and what runs, and what it may do without asking."""

    def __init__(self, around: Around, name: str, generation: int) -> None:
        self.around = around
        self.process: Process = (GatewayName(name), generation)
        self.leader: LeaderDouble | None = None
        self.session: SessionId | None = None
        self.waiting: dict[LedgerId, Request] = {}
        self.running: dict[LedgerId, Running] = {}
        self.unconfirmed: dict[LedgerId, ev.Settle] = {}
        self.ceilings: dict[BackendId, int] = {}
        self.credits: dict[int, Lent] = {}
        self.allotments: dict[str, Allotted] = {}
        self.limited: set[str] = set()
        """Keys that begin nothing on credit without an allotment."""
        self.inbox: deque[de.Decision] = deque()
        self.outbox: deque[ev.Event] = deque()
        self.alone_since = around.now
        self.renewed_at = float("-inf")
        """When the last leader renewal that it heard of began."""
        self.is_alive = True
        self.beats: dict[int, float] = {}
        self.local_leases = 0

    # -- what it holds

    def held_on(self, backend: BackendId) -> int:
        return sum(one.request.width for one in self.running.values() if one.claim.backend == backend)

    @property
    def is_past_fence(self) -> bool:
        return self.around.now >= self.renewed_at + self.around.rules.fence_s

    def begin(self, request: Request, backend: BackendId, lease: Lease, credit: Lent | None = None) -> None:
        attempt = request.attempts + 1
        self.running[request.ledger_id] = Running(Claim(request, backend, lease, attempt), credit)
        self.around.engines[backend].running[self.process, request.ledger_id] = request.width

    def release(self, ledger_id: LedgerId) -> Running:
        one = self.running.pop(ledger_id)
        self.around.engines[one.claim.backend].end((self.process, ledger_id))
        if one.credit is not None:
            one.credit.in_use -= one.request.width
        return one

    # -- a session

    def connect(self, leader: LeaderDouble) -> None:
        if self.session is not None:
            self.hang_up()
        self.around.sessions += 1
        session = self.session = SessionId(self.around.sessions)
        self.leader = leader
        leader.sessions[session] = self
        if self.around.bus.owner is leader and not self.around.bus.is_away:
            self.renewed_at = self.around.now
        leader.apply(
            ev.SessionOpened(
                session,
                *self.process,
                claims=tuple(
                    replace(one.claim, completion_tokens=one.completion_tokens) for one in self.running.values()
                ),
                queued=tuple(self.waiting.values()),
                ceilings=tuple(self.ceilings.items()),
                settles=tuple(replace(settle, session=session) for settle in self.unconfirmed.values()),
            )
        )

    def hang_up(self) -> None:
        """Whatever was on its way in either direction is lost."""
        self.session, self.leader = None, None
        self.alone_since = self.around.now
        self.inbox.clear()
        self.outbox.clear()
        self.credits.clear()
        self.beats.clear()

    def say(self, event: ev.Event) -> None:
        if self.session is not None:
            self.outbox.append(event)

    # -- what its clients do

    def ask(self, request: Request) -> None:
        if not self.begin_on_credit(request):
            self.waiting[request.ledger_id] = request
            if self.session is not None:
                self.say(ev.Submit(self.session, request))

    def begin_on_credit(self, request: Request) -> bool:
        now = self.around.now
        if self.session is None or any(
            (other.pool, other.model) == (request.pool, request.model) for other in self.waiting.values()
        ):
            return False
        for credit in self.credits.values():
            told = credit.told
            if (
                (told.pool, told.model) == (request.pool, request.model)
                and now < credit.valid_until
                and credit.in_use + request.width <= told.slots
                and credit.next_lease < told.first_lease + told.leases
                and self.held_on(told.backend) + request.width <= self.ceilings.get(told.backend, 0)
                and not self.is_past_fence
                and self.spend(request)
            ):
                assert self.leader is not None
                lease = Lease(self.leader.policy.epoch, credit.next_lease)
                credit.next_lease += 1
                credit.in_use += request.width
                self.begin(request, told.backend, lease, credit)
                self.say(ev.CreditStarted(self.session, told.id, lease.seq, request, told.backend))
                self.around.on_credit += 1
                return True
        return False

    def spend(self, request: Request) -> bool:
        if request.key not in self.limited:
            return True
        allotted = self.allotments.get(request.key)
        tokens = request.prompt_tokens + request.width * 256
        if allotted is None or self.around.now >= allotted.valid_until:
            return False
        told = allotted.told
        if allotted.requests + 1 > told.requests or allotted.tokens + tokens > told.tokens:
            return False
        allotted.requests += 1
        allotted.tokens += tokens
        return True

    def begin_locally(self) -> None:
        """No leader listens: within its ceilings it goes on by itself."""
        alone_s = self.around.now - self.alone_since
        if self.session is not None or not self.is_alive or alone_s < LOCAL_AFTER_S or self.is_past_fence:
            return
        for request in list(self.waiting.values()):
            for backend, slots in self.ceilings.items():
                facts = self.around.facts.get(backend)
                if (
                    facts is not None
                    and facts.pool == request.pool
                    and request.model in facts.models
                    and backend not in request.excluded
                    and self.held_on(backend) + request.width <= slots
                    and request.key not in self.limited
                ):
                    del self.waiting[request.ledger_id]
                    self.local_leases += 1
                    self.begin(request, backend, Lease(BY_ITSELF, self.local_leases))
                    self.around.by_itself += 1
                    break

    def first_token(self, ledger_id: LedgerId) -> None:
        self.running[ledger_id].has_first_token = True
        if self.session is not None:
            self.say(ev.FirstToken(self.session, ledger_id))

    def progress(self, ledger_id: LedgerId, tokens: int) -> None:
        one = self.running[ledger_id]
        one.completion_tokens += tokens
        if self.session is not None:
            self.say(ev.Progress(self.session, ledger_id, one.completion_tokens))

    def finish(self, ledger_id: LedgerId, used: Used, *, is_success: bool = True) -> None:
        one = self.release(ledger_id)
        settle = ev.Settle(
            self.session or SessionId(0),
            ledger_id,
            one.claim.lease,
            is_success,
            used,
            "finished" if is_success else "failed",
            one.request,
        )
        self.unconfirmed[ledger_id] = settle
        self.around.end(ledger_id, used)
        if self.session is not None:
            self.say(replace(settle, request=None))

    def cancel_waiting(self, ledger_id: LedgerId) -> None:
        del self.waiting[ledger_id]
        self.around.end(ledger_id, None)
        if self.session is not None:
            self.say(ev.Cancel(self.session, ledger_id))

    def nack(self, ledger_id: LedgerId, cause: ev.NackCause, retry_after_s: float = 0.0) -> None:
        one = self.release(ledger_id)
        self.waiting[ledger_id] = replace(
            one.request,
            attempts=one.claim.attempt,
            excluded=one.request.excluded | {one.claim.backend},
        )
        assert self.session is not None
        self.say(ev.Nack(self.session, ledger_id, one.claim.lease.seq, cause, retry_after_s))

    def beat(self, seq: int) -> None:
        if self.session is not None:
            self.end_expired()
            self.beats[seq] = self.around.now
            self.say(ev.Beat(self.session, seq))

    def end_expired(self) -> None:
        assert self.session is not None
        for number, credit in list(self.credits.items()):
            if self.around.now >= credit.valid_until:
                del self.credits[number]
                self.say(ev.CreditReturned(self.session, number))
        for key, allotted in list(self.allotments.items()):
            if self.around.now >= allotted.valid_until:
                del self.allotments[key]
                self.say(ev.AllotmentReturned(self.session, allotted.told.id))

    # -- what it is told

    def receive(self) -> None:
        told = self.inbox.popleft()
        session = self.session
        assert session is not None
        assert self.leader is not None
        if self.around.bus.owner is self.leader and not self.around.bus.is_away:
            self.renewed_at = self.around.now
        match told:
            case de.Grant():
                self._take_grant(session, told)
            case de.Reject(_, ledger_id, reason):
                assert reason is not Refusal.INTERNAL
                if self.waiting.pop(ledger_id, None) is not None:
                    self.around.end(ledger_id, None)
                    self.around.rejects[reason] += 1
            case de.Revoke(_, ledger_id):
                if self.waiting.pop(ledger_id, None) is not None:
                    self.around.end(ledger_id, None)
                elif ledger_id in self.running and not self.running[ledger_id].has_first_token:
                    self.nack(ledger_id, ev.NackCause.UNKNOWN_BACKEND)
            case de.Cutoff(_, ledger_id):
                if ledger_id in self.running:
                    one = self.running[ledger_id]
                    self.around.cutoffs += 1
                    self.finish(ledger_id, Used(one.request.prompt_tokens, 0, one.completion_tokens))
            case de.Settled(_, ledger_id):
                self.unconfirmed.pop(ledger_id, None)
                self.say(ev.SettledAcked((ledger_id,)))
            case de.CeilingTold():
                self.ceilings[told.backend] = told.slots
                self.say(ev.CeilingAcked(session, told.backend, told.version, self.held_on(told.backend)))
            case de.CreditLent():
                self._take_credit(session, told)
            case de.AllotmentLent():
                self._take_allotment(session, told)
            case de.SessionEnded():
                self.hang_up()

    def _take_grant(self, session: SessionId, grant: de.Grant) -> None:
        request = self.waiting.pop(grant.ledger_id, None)
        if request is None:
            settle = ev.Settle(session, grant.ledger_id, grant.lease, False, end="cancelled")
            if grant.ledger_id not in self.running:
                self.unconfirmed.setdefault(grant.ledger_id, settle)
            self.say(settle)
            return
        assert grant.attempt == request.attempts + 1 <= self.around.rules.attempts
        held = self.held_on(grant.backend) + request.width
        assert held <= self.ceilings.get(grant.backend, 0), "a grant goes out when its ceiling has been told"
        self.begin(request, grant.backend, grant.lease)
        if self.is_past_fence:
            self.finish(request.ledger_id, Used(), is_success=False)

    def _take_credit(self, session: SessionId, told: de.CreditLent) -> None:
        if told.is_recall:
            if self.credits.pop(told.id, None) is not None:
                self.say(ev.CreditReturned(session, told.id))
            return
        sent_at = self.beats.get(told.beat_seq, float("-inf"))
        known = self.credits.get(told.id)
        if known is None:
            if told.id not in self.around.credits_seen:
                self.around.credits_seen.add(told.id)
                self.credits[told.id] = Lent(told, sent_at + told.valid_s, told.first_lease)
            return
        known.told, known.valid_until = told, sent_at + told.valid_s
        known.next_lease = max(known.next_lease, told.first_lease)

    def _take_allotment(self, session: SessionId, told: de.AllotmentLent) -> None:
        known = self.allotments.get(told.key)
        if told.is_recall:
            if known is not None and known.told.id == told.id:
                del self.allotments[told.key]
            self.say(ev.AllotmentReturned(session, told.id))
            return
        valid_until = self.beats.get(told.beat_seq, float("-inf")) + told.valid_s
        if known is None or known.told.id != told.id:
            self.allotments[told.key] = Allotted(told, valid_until)
        else:
            known.valid_until = valid_until


@dataclass
class Around:
    """Everything around the scheduler, and what became of each request."""

    rules: Rules
    facts: dict[BackendId, Backend]
    now: float = 1000.0
    term: int = 0
    sessions: int = 0
    seq: int = 0
    on_credit: int = 0
    by_itself: int = 0
    cutoffs: int = 0
    on_grant: Callable[[LeaderDouble, GatewayDouble, de.Grant], None] = lambda leader, gateway, grant: None
    submitted: dict[LedgerId, Request] = field(default_factory=dict)
    ends: Counter[LedgerId] = field(default_factory=Counter)
    used: dict[LedgerId, Used] = field(default_factory=dict)
    """What each really used, in the end."""
    died: set[LedgerId] = field(default_factory=set)
    """Their gateway died with them."""
    orphans: Counter[LedgerId] = field(default_factory=Counter)
    rejects: Counter[Refusal] = field(default_factory=Counter)
    credits_seen: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.bus = BusDouble()
        self.engines = {backend: EngineDouble() for backend in self.facts}
        self.gateways: dict[str, GatewayDouble] = {}
        self.policy_told: list[ev.PolicyChanged] = []
        self.leaders: list[LeaderDouble] = []
        self.excused: set[BackendId] = set()
        """Had its cap lowered below what runs; gateways follow."""
        self.blind: set[BackendId] = {backend for backend, facts in self.facts.items() if facts.running is None}
        self.lead()

    @property
    def wall_us(self) -> int:
        return round((self.now + 1_700_000_000) * 1e6)

    @property
    def leader(self) -> LeaderDouble:
        return self.leaders[-1]

    @property
    def policy(self) -> Policy:
        return self.leader.policy

    def new_id(self) -> LedgerId:
        self.seq += 1
        return LedgerId(b"%016d" % self.seq)

    def end(self, ledger_id: LedgerId, used: Used | None) -> None:
        self.ends[ledger_id] += 1
        if used is not None:
            self.used[ledger_id] = used

    # -- leaders

    def lead(self) -> LeaderDouble:
        """Another starts to lead; those before it do not know yet."""
        self.term += 1
        state = NOTHING_SAVED
        if self.bus.state is not None:
            at, stored = self.bus.state
            drains = {b: None if s is None else s - (self.now - at) for b, s in stored.drains.items()}
            state = replace(stored, wall_us=self.wall_us, drains=drains)
        policy = Policy(
            self.rules,
            Epoch(1, self.term),
            self.now,
            recovered=self.bus.ceilings(self.now),
            state=state,
            seed=self.term,
            wall_us=self.wall_us,
        )
        leader = LeaderDouble(self, policy)
        self.bus.owner = leader
        self.leaders.append(leader)
        self.credits_seen.clear()
        leader.apply(*self.policy_told, ev.FleetChanged(tuple(self.facts.values())))
        return leader

    def depose(self, leader: LeaderDouble) -> None:
        """It notices, and its streams end."""
        for gateway in self.gateways.values():
            if gateway.leader is leader:
                gateway.hang_up()
        self.leaders.remove(leader)

    def tell(self, change: ev.PolicyChanged) -> None:
        self.policy_told.append(change)
        for leader in self.leaders:
            leader.apply(change)

    def tell_fleet(self) -> None:
        for leader in self.leaders:
            leader.apply(ev.FleetChanged(tuple(self.facts.values())))

    # -- gateways

    def start(self, name: str) -> GatewayDouble:
        known = self.gateways.get(name)
        gateway = self.gateways[name] = GatewayDouble(self, name, 1 if known is None else known.process[1] + 1)
        gateway.connect(self.leader)
        return gateway

    def kill(self, name: str) -> None:
        """Its clients are gone with it; its engines do not know yet."""
        gateway = self.gateways[name]
        leader, session = gateway.leader, gateway.session
        for ledger_id in (*gateway.waiting, *gateway.running):
            self.end(ledger_id, None)
            self.died.add(ledger_id)
        for one in gateway.running.values():
            self.engines[one.claim.backend].left_at[gateway.process, one.request.ledger_id] = self.now
        self.died |= gateway.unconfirmed.keys()
        gateway.waiting.clear()
        gateway.running.clear()
        gateway.unconfirmed.clear()
        gateway.hang_up()
        gateway.is_alive = False
        if leader is not None and session is not None:
            leader.apply(ev.SessionLost(session))

    def lose(self, gateway: GatewayDouble) -> None:
        """The stream breaks, and both sides see it."""
        leader, session = gateway.leader, gateway.session
        gateway.hang_up()
        if leader is not None and session is not None and leader in self.leaders:
            leader.apply(ev.SessionLost(session))

    def connected(self) -> list[GatewayDouble]:
        return [gateway for gateway in self.gateways.values() if gateway.session is not None]

    # -- what travels

    def hear(self, gateway: GatewayDouble, most: int = 1000) -> None:
        """The leader reads what this gateway said, all of it in one frame."""
        events = [gateway.outbox.popleft() for _ in range(min(most, len(gateway.outbox)))]
        if events and gateway.leader is not None:
            gateway.leader.apply(*events)

    def receive(self, gateway: GatewayDouble, most: int = 1000) -> None:
        while gateway.inbox and most:
            gateway.receive()
            most -= 1

    def store(self, leader: LeaderDouble, *, is_confirmed: bool = True) -> None:
        order = leader.to_store
        if order is None or self.bus.is_away or not self.bus.write(leader, order, self.now):
            return
        leader.to_store = None
        if is_confirmed:
            leader.apply(ev.CeilingsStored(order.ticket))
        else:
            leader.confirmed.append(order.ticket)

    def confirm(self, leader: LeaderDouble) -> None:
        while leader.confirmed:
            leader.apply(ev.CeilingsStored(leader.confirmed.popleft()))

    def confirm_states(self, leader: LeaderDouble) -> None:
        while leader.states:
            leader.apply(ev.StateStored(leader.states.popleft()))

    def exchange(self) -> None:
        """All that is on its way arrives, and all that follows from it."""
        for _ in range(200):
            busy = False
            for gateway in list(self.gateways.values()):
                busy = busy or bool(gateway.inbox) or bool(gateway.outbox)
                self.receive(gateway)
                self.hear(gateway)
            for leader in list(self.leaders):
                busy = busy or (leader.to_store is not None and self.bus.owner is leader and not self.bus.is_away)
                busy = busy or bool(leader.confirmed)
                self.confirm(leader)
                self.store(leader)
            if not busy:
                return
        raise AssertionError("they never come to rest")

    # -- time

    def pass_time(self, seconds: float, *, reports: bool = True) -> None:
        """What is older than this has arrived: nothing travels for as long as a second."""
        if seconds >= 0.5:
            self.exchange()
        self.now += seconds
        for backend, engine in self.engines.items():
            for key, left_at in list(engine.left_at.items()):
                if backend in self.blind and self.now >= left_at + BLIND_ENGINES_NOTICE_S:
                    engine.end(key)
        for gateway in self.gateways.values():
            gateway.begin_locally()
            if gateway.leader is not None and gateway.session is not None:
                if gateway.leader is self.bus.owner and not self.bus.is_away:
                    gateway.renewed_at = self.now
                gateway.say(ev.Heard(gateway.session))
        if seconds >= 0.5:
            self.exchange()
        if reports:
            self.report()
        for leader in list(self.leaders):
            leader.apply(ev.Tick(self.wall_us))
        if seconds >= 0.5:
            self.exchange()

    def report(self) -> None:
        """The registry asks the engines."""
        for backend, facts in self.facts.items():
            if backend not in self.blind:
                self.facts[backend] = replace(facts, running=self.engines[backend].slots, measured_at=self.now)
        counted = tuple(facts for backend, facts in self.facts.items() if backend not in self.blind)
        for leader in self.leaders:
            leader.apply(ev.BackendsReported(counted))

    # -- what always holds

    def check_slots(self) -> None:
        for backend, facts in self.facts.items():
            running = self.engines[backend].slots
            if running <= facts.slots:
                self.excused.discard(backend)
            assert running <= facts.slots or backend in self.excused, f"{backend} runs {running} of {facts.slots}"

    def check_ends(self) -> None:
        """Each request waits, runs or has ended, and that once."""
        assert all(times == 1 for times in self.ends.values()), "one end each"
        open_now: Counter[LedgerId] = Counter()
        for gateway in self.gateways.values():
            open_now.update(gateway.waiting.keys())
            open_now.update(gateway.running.keys())
        assert all(times == 1 for times in open_now.values())
        assert open_now.keys().isdisjoint(self.ends)
        assert open_now.keys() | self.ends.keys() == self.submitted.keys()

    def set_facts(self, backend: BackendId, **fields: object) -> None:
        self.facts[backend] = replace(self.facts[backend], **fields)  # type: ignore[arg-type]
        if self.facts[backend].slots < self.engines[backend].slots + sum(
            gateway.ceilings.get(backend, 0) for gateway in self.gateways.values()
        ):
            self.excused.add(backend)
        self.tell_fleet()


def tokens_of(used: Iterable[Used]) -> int:
    return sum(one.prompt_tokens + one.completion_tokens for one in used)
