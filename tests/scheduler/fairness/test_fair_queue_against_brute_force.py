"""The fair queue against the same discipline written without any cleverness: every answer by looking at everything."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from forebay_scheduler.fairness.fair_queue import Charge, FairQueue, FairRules
from forebay_scheduler.fairness.shares import Shares
from forebay_scheduler.request import Band, GroupId, KeyId, LedgerId, Request, UserId
from forebay_scheduler.terms import GroupTerms, UserTerms

CREDIT = 50.0
MODELS = ("m", "n", "o")
BANDS = (Band.SYSTEM, Band.INTERACTIVE, Band.STANDARD, Band.BATCH)
BAND_WEIGHTS = {Band.INTERACTIVE: 64.0, Band.STANDARD: 16.0, Band.BATCH: 1.0}
PARENTS = {"physics": "science", "optics": "physics", "science": "", "law": ""}
GROUP_OF = {"ann": "optics", "ben": "optics", "cid": "physics", "dot": "science", "eve": "law", "fay": ""}
USERS = tuple(GROUP_OF)

Path = tuple[str, ...]
costs = st.integers(0, 300_000)


def path_of(request: Request) -> Path:
    groups: list[str] = []
    group = GROUP_OF[request.user]
    while group:
        groups.insert(0, f"g:{group}")
        group = PARENTS[group]
    return request.band.value, *groups, f"u:{request.user}", f"k:{request.key}"


@dataclass
class Plain:
    weight: float = 1.0
    is_paused: bool = False
    vt: float = -math.inf
    base: float = -math.inf
    least: float = -math.inf
    turn: int = 0
    clock: float = 0.0
    reserved: int = 0
    settled: int = 0


@dataclass
class BruteForce:
    """Looks at everything each time."""

    users: dict[str, UserTerms]
    groups: dict[str, GroupTerms]
    nodes: dict[Path, Plain] = field(default_factory=lambda: {(): Plain()})
    waiting: list[Request] = field(default_factory=list)
    turn: int = 0

    def above(self, path: Path) -> Path | None:
        return None if path in ((), ("system",)) else path[:-1]

    def known(self, path: Path) -> None:
        for end in range(1, len(path) + 1):
            if path[:end] not in self.nodes:
                node = self.nodes[path[:end]] = Plain()
                if end == 1:
                    node.vt = 0.0 if path[0] != "system" else -math.inf
                    node.weight = BAND_WEIGHTS.get(Band(path[0]), 1.0)
        self.follow()

    def follow(self) -> None:
        """The shares as they are now."""
        for path, node in self.nodes.items():
            kind, name = (path[-1][:2], path[-1][2:]) if path else ("", "")
            if kind == "u:":
                node.weight = max(self.users[name].weight, 0.001)
                self.set_paused(path, self.users[name].is_paused)
            elif kind == "g:":
                node.weight = self.groups[name].weight

    def steps(self, path: Path) -> list[Path]:
        """From the leaf up."""
        steps = []
        step: Path | None = path
        while step is not None:
            steps.append(step)
            step = self.above(step)
        return steps

    def has_backlog(self, path: Path, models: tuple[str, ...] = MODELS) -> bool:
        for request in self.waiting:
            whole = path_of(request)
            if request.model in models and whole[: len(path)] == path and (path or whole[0] != "system"):
                between = [whole[:end] for end in range(len(path) + 1, len(whole) + 1)]
                if not any(self.nodes[step].is_paused for step in between):
                    return True
        return False

    def ready(self, parent: Path, models: tuple[str, ...] = MODELS) -> list[Path]:
        """Children, the next one first."""
        children = [path for path in self.nodes if path and self.above(path) == parent]
        ready = [path for path in children if not self.nodes[path].is_paused and self.has_backlog(path, models)]
        return sorted(ready, key=lambda path: (self.nodes[path].vt, self.nodes[path].turn))

    def lift(self, path: Path) -> None:
        parent = path[:-1]
        ready = self.ready(parent)
        floor = max(self.nodes[ready[0]].vt, self.nodes[ready[0]].base) if ready else self.nodes[parent].clock
        node = self.nodes[path]
        if node.vt < floor:
            node.base = floor
            if node.vt < floor - CREDIT:
                node.vt = node.least = floor - CREDIT

    def come(self, path: Path, had_backlog: dict[Path, bool]) -> None:
        for step in self.steps(path):
            if self.above(step) is None or self.nodes[step].is_paused:
                return
            if not had_backlog[step]:
                self.lift(step)
                self.turn += 1
                self.nodes[step].turn = self.turn

    def push(self, request: Request, is_restored: bool = False) -> None:
        path = path_of(request)
        self.known(path)
        had_backlog = {step: self.has_backlog(step) for step in self.steps(path)}
        self.come(path, had_backlog)
        at = 0
        for index, other in enumerate(self.waiting):
            is_behind = other.arrived_at < request.arrived_at if is_restored else other.arrived_at <= request.arrived_at
            at = index + 1 if is_behind else at
        self.waiting.insert(at, request)

    def set_paused(self, path: Path, is_paused: bool) -> None:
        if path not in self.nodes or self.nodes[path].is_paused == is_paused:
            return
        if is_paused or not self.has_backlog(path):
            self.nodes[path].is_paused = is_paused
            return
        for step in self.steps(path):  # before anyone counts as ready who was not
            if self.above(step) is None or (step != path and self.nodes[step].is_paused):
                break
            if step == path or not self.has_backlog(step):
                self.lift(step)
                self.turn += 1
                self.nodes[step].turn = self.turn
        self.nodes[path].is_paused = False

    def charge(self, path: Path, cost: int, kind: str) -> None:
        self.known(path)
        for step in self.steps(path):
            node = self.nodes[step]
            parent = self.above(step)
            if parent is not None:
                if kind == "pass" and not self.has_backlog(step):
                    self.lift(step)
                if kind == "adopt" and node.vt == -math.inf:
                    self.lift(step)
                if kind in ("pass", "start"):
                    self.nodes[parent].clock = max(self.nodes[parent].clock, node.vt)
                node.vt += cost * (0.001 / node.weight)
            node.reserved += cost

    def settle(self, path: Path, held: int, cost: int) -> None:
        for step in self.steps(path):
            node = self.nodes[step]
            node.reserved -= held
            node.settled += cost
            node.vt += (cost - held) * (0.001 / node.weight)
            if cost < held:
                node.vt = max(node.vt, node.least)

    def extend(self, path: Path, more: int) -> None:
        for step in self.steps(path):
            self.nodes[step].vt += more * (0.001 / self.nodes[step].weight)
            self.nodes[step].reserved += more

    def lines(self, models: tuple[str, ...]) -> list[tuple[float, Request]]:
        """(ahead, first of its line) of each line, those of the root that goes first only; the SFQ choice first."""
        root: Path = ("system",) if self.has_backlog(("system",), models) else ()
        lines: list[tuple[float, Request]] = []

        def visit(path: Path, ahead: float) -> None:
            if path and path[-1].startswith("k:"):
                heads: dict[str, Request] = {}
                for request in self.waiting:
                    if path_of(request) == path and request.model in models:
                        heads.setdefault(request.model, request)
                in_turn = sorted(heads.values(), key=lambda request: (request.arrived_at, models.index(request.model)))
                lines.extend((ahead, request) for request in in_turn)
                return
            ready = self.ready(path, models)
            for child in ready:
                visit(child, ahead + self.nodes[child].vt - self.nodes[ready[0]].vt)

        visit(root, 0.0)
        return lines


WANTED: Any = {
    "user": st.sampled_from(USERS),
    "key": st.sampled_from(("k1", "k2")),
    "band": st.sampled_from((Band.STANDARD, Band.STANDARD, *BANDS)),
    "model": st.sampled_from(("m", "m", "m", "n", "o")),
    "age": st.sampled_from((0.0, 0.0, 2.5)),
}


class FairQueueMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.shares = Shares()
        self.groups = {name: GroupTerms(GroupId(name), GroupId(parent) or None) for name, parent in PARENTS.items()}
        self.users = {name: UserTerms(UserId(name), GroupId(group) or None) for name, group in GROUP_OF.items()}
        self.shares.change(groups=self.groups.values(), users=self.users.values())
        self.queue = FairQueue(self.shares, FairRules(credit_tokens=CREDIT))
        self.plain = BruteForce(self.users, self.groups)
        self.running: list[tuple[Request, Charge]] = []
        self.charged = 0
        self.seq = 0
        self.clocks: dict[int, float] = {}

    def request(self, user: str, key: str, band: Band, model: str, age: float) -> Request:
        self.seq += 1
        return Request(
            LedgerId(self.seq.to_bytes(16, "big")),
            UserId(user),
            model,
            self.seq - age,
            band=band,
            key=KeyId(key),
            group=GroupId(GROUP_OF[user]),
        )

    @rule(**WANTED)
    def push(self, user: str, key: str, band: Band, model: str, age: float) -> None:
        request = self.request(user, key, band, model, age)
        self.queue.push(request)
        self.plain.push(request)

    @rule(**WANTED, cost=costs, kind=st.sampled_from(("pass", "adopt")))
    def begin(self, user: str, key: str, band: Band, model: str, age: float, cost: int, kind: str) -> None:
        request = self.request(user, key, band, model, age)
        charge = self.queue.pass_by(request, cost) if kind == "pass" else self.queue.adopt(request, cost)
        self.plain.charge(path_of(request), cost, kind)
        self.running.append((request, charge))
        self.charged += cost

    @precondition(lambda self: self.plain.waiting)
    @rule(models=st.sets(st.sampled_from(MODELS), min_size=1), cost=costs)
    def start_the_next(self, models: set[str], cost: int) -> None:
        heads = self.queue.heads(sorted(models), 0.0, 1)
        if heads:
            self.start(heads[0].request, cost)

    @precondition(lambda self: self.plain.waiting)
    @rule(pick=st.integers(0, 1000), cost=costs)
    def start_any(self, pick: int, cost: int) -> None:
        self.start(self.plain.waiting[pick % len(self.plain.waiting)], cost)

    def start(self, request: Request, cost: int) -> None:
        charge = self.queue.start(request, cost)
        self.plain.waiting.remove(request)
        self.plain.charge(path_of(request), cost, "start")
        self.running.append((request, charge))
        self.charged += cost

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 1000), cost=costs)
    def settle(self, pick: int, cost: int) -> None:
        request, charge = self.running.pop(pick % len(self.running))
        held = charge.cost
        for _ in range(2):
            self.queue.settle(charge, cost)
        self.queue.extend(charge, 10**9)
        self.plain.settle(path_of(request), held, cost)
        self.charged += cost - held

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 1000))
    def start_in_vain(self, pick: int) -> None:
        request, charge = self.running.pop(pick % len(self.running))
        held = charge.cost
        self.queue.settle(charge, 0)
        self.queue.restore(request)
        self.plain.settle(path_of(request), held, 0)
        self.plain.push(request, is_restored=True)
        self.charged -= held

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 1000), cost=costs)
    def extend(self, pick: int, cost: int) -> None:
        request, charge = self.running[pick % len(self.running)]
        more = max(0, cost - charge.cost)
        self.queue.extend(charge, cost)
        self.plain.extend(path_of(request), more)
        self.charged += more

    @precondition(lambda self: self.plain.waiting)
    @rule(pick=st.integers(0, 1000))
    def remove(self, pick: int) -> None:
        request = self.plain.waiting.pop(pick % len(self.plain.waiting))
        assert self.queue.remove(request.ledger_id)
        assert not self.queue.remove(request.ledger_id)

    @rule(user=st.sampled_from(USERS), weight=st.sampled_from((-1.0, 0.0, 0.5, 1.0, 3.0)))
    def weigh_user(self, user: str, weight: float) -> None:
        terms = self.users[user]
        self.users[user] = UserTerms(terms.user, terms.group, weight, is_paused=terms.is_paused)
        self.shares.change(users=[self.users[user]])
        self.queue.reshape()
        self.plain.follow()

    @rule(group=st.sampled_from(tuple(PARENTS)), weight=st.sampled_from((0.5, 1.0, 10.0)))
    def weigh_group(self, group: str, weight: float) -> None:
        terms = self.groups[group]
        self.groups[group] = GroupTerms(terms.group, terms.parent, weight, is_paused=terms.is_paused)
        self.shares.change(groups=[self.groups[group]])
        self.queue.reshape()
        self.plain.follow()

    @rule(user=st.sampled_from(USERS), is_paused=st.booleans())
    def pause_user(self, user: str, is_paused: bool) -> None:
        terms = self.users[user]
        self.users[user] = UserTerms(terms.user, terms.group, terms.weight, is_paused=is_paused)
        self.shares.change(users=[self.users[user]])
        self.queue.reshape()
        self.plain.follow()

    @invariant()
    def every_node_is_where_brute_force_says(self) -> None:
        seen = 0
        for root in self.queue.roots:
            for node in root.within():
                path = tuple(step.name for step in node.path())
                if path not in self.plain.nodes:
                    assert not node.charged
                    continue
                plain = self.plain.nodes[path]
                seen += 1
                if node.parent is not None:
                    assert (node.vt, node.turn) == (plain.vt, plain.turn) or math.isclose(
                        node.vt, plain.vt, abs_tol=1e-6
                    )
                assert node.reserved == plain.reserved
                assert node.settled == plain.settled
        assert seen == len(self.plain.nodes)

    @invariant()
    def what_is_named_first_is_what_brute_force_would_take(self) -> None:
        for models in (("m",), ("n",), ("o",), ("n", "m"), MODELS):
            lines = self.plain.lines(models)
            assert [head.request for head in self.queue.heads(models, 0.0, 16)] == [r for _, r in lines[:1]]
            for window, most in ((60.0, 3), (200.0, 16), (math.inf, 100)):
                self.check_window(models, lines, window, most)

    def check_window(
        self, models: tuple[str, ...], lines: list[tuple[float, Request]], window: float, most: int
    ) -> None:
        heads = self.queue.heads(models, window, most)
        if self.queue.roots[0].backlogs and window == math.inf:
            return  # those of the other bands follow
        within = sorted(ahead for ahead, _ in lines if ahead <= window)[:most]
        assert len(heads) == len(within)
        for head, ahead in zip(heads, within, strict=True):
            assert math.isclose(head.ahead, ahead, rel_tol=1e-9, abs_tol=1e-6)
        named = [head.request.ledger_id for head in heads]
        assert len(set(named)) == len(named)
        assert all(head.request in [request for _, request in lines] for head in heads)

    @invariant()
    def nothing_is_lost_and_nothing_counted_twice(self) -> None:
        assert self.queue.settled + self.queue.reserved == self.charged
        assert self.queue.reserved == sum(charge.cost for _, charge in self.running)
        for root in self.queue.roots:
            for node in root.within():
                if node.children:
                    assert node.reserved == sum(child.reserved for child in node.children.values())
                    assert node.settled == node.gone + sum(child.settled for child in node.children.values())
                    assert node.present == sum(child.present for child in node.children.values())
        assert len(self.queue) == len(self.plain.waiting)
        assert {request.ledger_id for request in self.queue} == {r.ledger_id for r in self.plain.waiting}
        for user in USERS:
            assert self.queue.waiting_of(UserId(user)) == sum(r.user == user for r in self.plain.waiting)
        for model in MODELS:
            assert self.queue.waiting_for(model) == sum(r.model == model for r in self.plain.waiting)
            assert (model in self.queue.models) == bool(self.plain.lines((model,)))

    @invariant()
    def clocks_go_forward_and_heaps_stay_small(self) -> None:
        for root in self.queue.roots:
            for node in root.within():
                assert node.clock >= self.clocks.get(id(node), -math.inf)
                self.clocks[id(node)] = node.clock
                for backlog in node.backlogs.values():
                    if backlog.heap is not None:
                        assert len(backlog.heap) <= 2 * backlog.count + 17
                        assert sum(entry[3].stamp == entry[2] for entry in backlog.heap) == backlog.count
                if node.backlogs and node.children:
                    ready = [child for child in node.children.values() if child.backlogs and not child.is_paused]
                    assert math.isclose(node.load, sum(child.weight for child in ready), rel_tol=1e-6)

    @invariant()
    def shares_of_those_who_wait_add_up_to_one(self) -> None:
        by_leaf: dict[Path, float] = {}
        for request in self.plain.waiting:
            path = path_of(request)
            if path[0] != "system" and not self.users[request.user].is_paused:
                by_leaf[path] = self.queue.due(request)
        assert not by_leaf or math.isclose(sum(by_leaf.values()), 1.0, rel_tol=1e-6)


FairQueueMachine.TestCase.settings = settings(deadline=None, max_examples=40, stateful_step_count=35)
test_any_history = FairQueueMachine.TestCase
