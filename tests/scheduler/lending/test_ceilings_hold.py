"""Whatever happens in whatever order: what gateways really run never passes a backend's cap. Gateways, their streams and
the bus are small honest doubles; the gateways use all that they are allowed to."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forebay_scheduler.decisions import CeilingTold, StoreCeilings, StoredCeilings
from forebay_scheduler.lending.ceilings import Ceilings, Wanted
from forebay_scheduler.request import BackendId, GatewayName, Process, SessionId

BACKENDS = [BackendId("gpu1"), BackendId("gpu2")]
NAMES = ["g1", "g2", "g3"]
LOCAL_AFTER_S = 2.0

names = st.sampled_from(NAMES)
backends = st.sampled_from(BACKENDS)


@dataclass
class Grant:
    backend: BackendId
    slots: int


@dataclass
class Ack:
    backend: BackendId
    version: int
    held: int


@dataclass
class Settle:
    backend: BackendId


@dataclass
class GatewayDouble:
    """One process. It begins what is granted at once; alone, it begins whatever its ceilings allow."""

    name: str
    generation: int
    session: SessionId | None = None
    alone_since: float | None = None
    ceilings: dict[BackendId, int] = field(default_factory=dict)
    running: dict[BackendId, int] = field(default_factory=dict)
    inbox: deque[CeilingTold | Grant] = field(default_factory=deque)
    outbox: deque[Ack | Settle] = field(default_factory=deque)
    is_noticed: bool = True
    """The leader knows that its session is over, if it is."""
    heard_at: float = 0.0
    leader: Ceilings | None = None
    """Whom its session is with."""

    @property
    def process(self) -> Process:
        return GatewayName(self.name), self.generation

    def receive(self) -> None:
        said = self.inbox.popleft()
        if isinstance(said, CeilingTold):
            self.ceilings[said.backend] = said.slots
            if self.session is not None:
                self.outbox.append(Ack(said.backend, said.version, self.running.get(said.backend, 0)))
        else:
            self.begin(said.backend, said.slots)

    def begin(self, backend: BackendId, slots: int) -> None:
        self.running[backend] = self.running.get(backend, 0) + slots

    def finish(self, backend: BackendId) -> None:
        self.running[backend] -= 1
        if self.session is not None:
            self.outbox.append(Settle(backend))

    def hang_up(self, now: float) -> None:
        self.session, self.alone_since = None, now
        self.inbox.clear()
        self.outbox.clear()


class Bus:
    """Keeps shards. A write is under way until it arrives; its confirmation may be lost, and so may the write."""

    def __init__(self) -> None:
        self.shards: dict[int, Sequence[StoredCeilings]] = {}
        self.under_way: StoreCeilings | None = None
        self.confirmed: deque[int] = deque()
        self.is_away = False

    def read(self) -> list[StoredCeilings]:
        return [stored for shard in self.shards.values() for stored in shard]

    def arrive(self) -> None:
        assert self.under_way is not None
        self.shards.update(self.under_way.shards)
        self.confirmed.append(self.under_way.ticket)
        self.under_way = None


class Lending(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.bus = Bus()
        self.caps = {backend: 4 for backend in BACKENDS}
        self.most = dict(self.caps)
        """The cap, or what was allotted when it was lowered, until gateways have followed."""
        self.gateways: dict[str, GatewayDouble] = {}
        self.generations: Counter[str] = Counter()
        self.zombies: list[GatewayDouble] = []
        """Dead, and their engines still run."""
        self.buried: dict[Process, dict[BackendId, int]] = {}
        self.sessions = 0
        self.former: Ceilings | None = None
        self.ceilings = self.new_leader()

    def new_leader(self) -> Ceilings:
        return Ceilings(local_after_s=LOCAL_AFTER_S)

    @initialize()
    def begin(self) -> None:
        self.ceilings.set_caps(self.caps)
        for name in NAMES[:2]:
            self.start(name)
        self.go_round()
        self.go_round()

    # -- the gateways -----------------------------------------------------------------------------------------------

    @rule(name=names)
    def start(self, name: str) -> None:
        old = self.gateways.pop(name, None)
        if old is not None:
            self.die(old)
            self.bury(old)
        self.generations[name] += 1  # each start counts: no process is ever the one before it
        self.gateways[name] = GatewayDouble(name, self.generations[name], alone_since=self.now)
        self.connect(name)

    @rule(name=names)
    def connect(self, name: str) -> None:
        """Also over a session that the leader takes to be alive."""
        gateway = self.gateways.get(name)
        if gateway is None:
            return
        gateway.hang_up(self.now)
        self.sessions += 1
        gateway.session, gateway.alone_since, gateway.is_noticed = SessionId(self.sessions), None, True
        gateway.heard_at, gateway.leader = self.now, self.ceilings
        self.ceilings.open(gateway.process, gateway.session, gateway.running, gateway.ceilings)

    @rule(name=names, is_noticed=st.booleans())
    def disconnect(self, name: str, is_noticed: bool) -> None:
        gateway = self.gateways.get(name)
        if gateway is None or gateway.session is None:
            return
        if is_noticed and gateway.leader is not None:
            gateway.leader.lose(gateway.process)
        gateway.hang_up(self.now)
        gateway.is_noticed = is_noticed

    @rule(name=names)
    def kill(self, name: str) -> None:
        gateway = self.gateways.get(name)
        if gateway is not None:
            self.die(gateway)
            self.bury(gateway)
            del self.gateways[name]

    def die(self, gateway: GatewayDouble) -> None:
        while gateway.inbox:  # it may have taken all this in before it died
            gateway.receive()
        gateway.hang_up(self.now)
        self.zombies.append(gateway)

    def bury(self, gateway: GatewayDouble) -> None:
        kept = self.ceilings.bury(gateway.process, self.now, gateway.heard_at)
        if kept:
            self.buried[gateway.process] = kept
        for backend, slots in gateway.running.items():
            assert slots <= kept.get(backend, 0), "what a dead gateway's engines run is kept"

    @rule(name=names)
    def drain_and_leave(self, name: str) -> None:
        gateway = self.gateways.get(name)
        if gateway is not None and gateway.session is not None and not any(gateway.running.values()):
            assert gateway.leader is not None
            gateway.leader.leave(gateway.process)
            if gateway.leader is not self.ceilings:
                self.bury(gateway)
            del self.gateways[name]

    @rule(backend=backends)
    def an_engine_of_the_dead_finishes(self, backend: BackendId) -> None:
        for zombie in self.zombies:
            zombie.running[backend] = 0
        for process, kept in self.buried.items():
            if backend in kept and self.ceilings.reserved(process).get(backend):
                self.ceilings.release(process, backend, 1)

    @rule(name=names, times=st.integers(1, 4))
    def receive(self, name: str, times: int) -> None:
        gateway = self.gateways.get(name)
        while gateway is not None and gateway.inbox and times:
            gateway.receive()
            times -= 1

    @rule(name=names, times=st.integers(1, 4))
    def hear(self, name: str, times: int) -> None:
        gateway = self.gateways.get(name)
        while gateway is not None and gateway.session is not None and gateway.outbox and times:
            said = gateway.outbox.popleft()
            gateway.heard_at = self.now
            assert gateway.leader is not None
            if isinstance(said, Ack):
                gateway.leader.acked(gateway.session, said.backend, said.version, said.held)
            else:
                gateway.leader.give_back(gateway.process, said.backend, 1)
            times -= 1
        self.turn()

    @rule(name=names, backend=backends)
    def finish(self, name: str, backend: BackendId) -> None:
        gateway = self.gateways.get(name)
        if gateway is not None and gateway.running.get(backend):
            gateway.finish(backend)

    @rule(name=names, backend=backends)
    def work_alone(self, name: str, backend: BackendId) -> None:
        gateway = self.gateways.get(name)
        if gateway is None or gateway.alone_since is None or self.now - gateway.alone_since < LOCAL_AFTER_S:
            return
        room = gateway.ceilings.get(backend, 0) - gateway.running.get(backend, 0)
        if room > 0:
            gateway.begin(backend, room)

    # -- the leader -------------------------------------------------------------------------------------------------

    @rule(name=names, backend=backends)
    def want_much(self, name: str, backend: BackendId) -> None:
        gateway = self.gateways.get(name)
        if gateway is not None and gateway.leader is not None:
            gateway.leader.want(gateway.process, backend, 3)
            self.turn()

    @rule(name=names, backend=backends, slots=st.integers(1, 2))
    def grant(self, name: str, backend: BackendId, slots: int) -> None:
        gateway = self.gateways.get(name)
        if gateway is None or gateway.leader is None:
            return
        wanted = gateway.leader.want(gateway.process, backend, slots)
        if wanted is Wanted.READY:
            gateway.leader.take(gateway.process, backend, slots)
            if gateway.session is not None:
                gateway.inbox.append(Grant(backend, slots))

    @rule()
    def turn(self) -> None:
        told: set[tuple[SessionId, BackendId]] = set()
        for decision in self.ceilings.turn(self.now):
            if isinstance(decision, StoreCeilings):
                assert self.bus.under_way is None or self.bus.is_away or self.was_away, "one write at a time"
                self.bus.under_way, self.was_away = decision, False
            else:
                assert (decision.session, decision.backend) not in told, "one word a turn"
                told.add((decision.session, decision.backend))
                self.send(decision)

    @rule()
    def turn_of_the_leader_before(self) -> None:
        """It does not know yet, and tells and grants on; what it writes is refused."""
        for decision in self.former.turn(self.now) if self.former is not None else []:
            if isinstance(decision, CeilingTold):
                self.send(decision)

    def send(self, told: CeilingTold) -> None:
        for gateway in self.gateways.values():
            if gateway.session == told.session:
                gateway.inbox.append(told)

    was_away = False

    @rule(backend=backends, cap=st.integers(0, 6))
    def change_cap(self, backend: BackendId, cap: int) -> None:
        if cap:
            self.caps[backend] = cap
        else:
            self.caps.pop(backend, None)
        for leader in (self.ceilings, self.former):
            if leader is not None:
                leader.set_caps(self.caps)

    @rule(seconds=st.sampled_from([0.5, 3.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(is_under_way_written=st.booleans(), cut_off=st.sets(names))
    def follow_with_another_leader(self, is_under_way_written: bool, cut_off: set[str]) -> None:
        """Those who are cut off from it stay with the leader before."""
        if self.bus.under_way is not None and is_under_way_written:
            self.bus.arrive()
        self.bus.under_way = None  # from here on it fails: the shards are the new leader's
        self.bus.confirmed.clear()
        self.former, self.ceilings = self.ceilings, self.new_leader()
        self.ceilings.recover(self.bus.read())
        self.ceilings.bus_changed(self.bus.is_away)
        self.ceilings.set_caps(self.caps)
        for gateway in self.gateways.values():
            if gateway.session is not None and (gateway.name not in cut_off or gateway.leader is not self.former):
                while gateway.inbox and is_under_way_written:
                    gateway.receive()
                gateway.hang_up(self.now)
        self.buried = {process: dict(self.ceilings.reserved(process)) for process in self.ceilings.dead()}
        known = {gateway.process for gateway in self.gateways.values()}
        for process in self.ceilings.unheard():
            if process not in known:  # it died and the store did not say so yet
                self.buried[process] = self.ceilings.bury(process, self.now, self.now)

    # -- the bus ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.bus.under_way is not None and not self.bus.is_away)
    @rule(is_confirmed=st.booleans())
    def a_write_arrives(self, is_confirmed: bool) -> None:
        self.bus.arrive()
        if is_confirmed:
            self.a_write_is_confirmed()

    @precondition(lambda self: self.bus.confirmed)
    @rule()
    def a_write_is_confirmed(self) -> None:
        self.ceilings.stored(self.bus.confirmed.popleft())
        self.turn()

    @rule(is_write_lost=st.booleans(), is_written=st.booleans())
    def the_bus_goes_or_comes(self, is_write_lost: bool, is_written: bool) -> None:
        self.bus.is_away = not self.bus.is_away
        if self.bus.is_away and is_write_lost:
            if is_written and self.bus.under_way is not None:
                self.bus.arrive()
            self.bus.under_way = None
            self.bus.confirmed.clear()
        self.was_away = self.was_away or self.bus.is_away
        self.ceilings.bus_changed(self.bus.is_away)

    # -- the promises -----------------------------------------------------------------------------------------------

    def may_run(self, backend: BackendId) -> int:
        """By all that they were told and hold, work that they may begin alone included."""
        alive = sum(
            max(
                gateway.ceilings.get(backend, 0),
                gateway.running.get(backend, 0),
                *(told.slots for told in gateway.inbox if isinstance(told, CeilingTold) and told.backend == backend),
                0,
            )
            for gateway in self.gateways.values()
        )
        return alive + sum(zombie.running.get(backend, 0) for zombie in self.zombies)

    @invariant()
    def nothing_passes_the_cap(self) -> None:
        for backend in BACKENDS:
            may_run, cap = self.may_run(backend), self.caps.get(backend, 0)
            # After a cap was lowered gateways follow; until then nothing is added.
            assert may_run <= max(cap, self.most.get(backend, 0)), (backend, may_run, cap)
            self.most[backend] = may_run

    @invariant()
    def the_bus_says_at_least_what_gateways_go_by(self) -> None:
        said: dict[tuple[Process, BackendId], int] = {}
        for stored in self.bus.read():
            for backend, slots in stored.slots.items():
                said[(stored.gateway, stored.generation), backend] = slots
        for gateway in self.gateways.values():
            for backend in BACKENDS:
                most = max(gateway.ceilings.get(backend, 0), gateway.running.get(backend, 0))
                assert most <= said.get((gateway.process, backend), 0)

    # -- the end ----------------------------------------------------------------------------------------------------

    def settle_down(self) -> None:
        if self.bus.is_away:
            self.bus.is_away = False
            self.ceilings.bus_changed(False)
        for gateway in self.gateways.values():
            if gateway.session is None or gateway.leader is not self.ceilings:
                self.connect(gateway.name)
        for zombie in self.zombies:
            zombie.running.clear()
        for process in list(self.ceilings.dead()):
            for backend, slots in list(self.ceilings.reserved(process).items()):
                self.ceilings.release(process, backend, slots)
        for gateway in self.gateways.values():
            self.receive(gateway.name, 100)
            for backend, slots in gateway.running.items():
                for _ in range(slots):
                    gateway.finish(backend)
        for _ in range(6):
            self.go_round()

    @precondition(lambda self: not self.bus.is_away)
    @rule()
    def go_round(self) -> None:
        """All is calm for a moment, so that what follows does not always start from nothing."""
        self.now += 0.2
        self.turn()
        if self.bus.under_way is not None:
            self.bus.arrive()
        while self.bus.confirmed:
            self.ceilings.stored(self.bus.confirmed.popleft())
        for gateway in self.gateways.values():
            self.receive(gateway.name, 100)
            self.hear(gateway.name, 100)
        self.nothing_passes_the_cap()
        self.the_bus_says_at_least_what_gateways_go_by()

    def teardown(self) -> None:
        self.settle_down()
        for backend in BACKENDS:
            cap = self.caps.get(backend, 0)
            assert self.may_run(backend) <= cap
            believed = sum(gateway.ceilings.get(backend, 0) for gateway in self.gateways.values())
            if self.gateways:
                assert self.ceilings.unallotted(backend) == cap - believed, "nothing leaks"
            if len(self.gateways) == 1:
                assert believed == cap, "a lone gateway has everything"
            for gateway in self.gateways.values():
                self.gets_all_of(gateway, backend, cap)

    def gets_all_of(self, gateway: GatewayDouble, backend: BackendId, cap: int) -> None:
        """While the others are idle, whoever wants it gets it, in at most so many turns."""
        if cap == 0:
            assert self.ceilings.want(gateway.process, backend, 1) is Wanted.IMPOSSIBLE
            return
        for _ in range(4):
            if self.ceilings.want(gateway.process, backend, cap) is Wanted.READY:
                return
            assert self.ceilings.want(gateway.process, backend, cap) is Wanted.COMING
            self.go_round()
        assert self.ceilings.want(gateway.process, backend, cap) is Wanted.READY


TestLending = Lending.TestCase
TestLending.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
