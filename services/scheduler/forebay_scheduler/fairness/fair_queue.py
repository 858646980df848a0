"""Whose request goes next: the waiting requests of one pool, in the order of a hierarchical start-time fair queue.

Band, nested groups, user and key are the levels of the tree; a key's requests for one model are one line, first come first
served. The whole expected cost is charged at the start, corrected while the answer runs and settled at its end, so that a
burst of long requests is paid for before it is over. Band `system` goes before all others; those share by weight.

Where a request starts, and whether it may, is for others to say; they tell it with `start`, `extend` and `settle`."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from types import MappingProxyType
from typing import NamedTuple

from forebay_scheduler.fairness.shares import Shares, as_weight
from forebay_scheduler.fairness.tree import (
    Backlog,
    Entry,
    Leaf,
    Node,
    Turns,
    Waiting,
    floor_of,
    has_shrunk,
    least_of,
    lift,
    top,
)
from forebay_scheduler.request import Band, BlockName, GroupId, KeyId, LedgerId, Request, UserId

SEPARATOR = "\x1f"
"""Joins the names of a path."""

_BAND_WEIGHTS: Mapping[Band, float] = MappingProxyType({Band.INTERACTIVE: 64.0, Band.STANDARD: 16.0, Band.BATCH: 1.0})
_GROUP, _USER, _KEY = "g:", "u:", "k:"
_BLOCKS_A_WINDOW = 2.0
_LOOK_PER_HEAD = 16
"""Entries looked at, at most, for each head that is asked for: heaps may hold many that are dead."""
_FORGET_FROM = 4096
"""Idle nodes that are not even looked at: who asks now and then would be forgotten and made anew each time."""
_LOOKS_PER_IDLE = 2
"""Idle nodes looked at for each that comes to be idle: so the idle cannot grow faster than they are looked through."""
_FORGET_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class FairRules:
    band_weights: Mapping[Band, float] = field(default_factory=lambda: _BAND_WEIGHTS)
    """Of the bands after `system`, which goes first and is not weighed."""
    credit_tokens: float = 1024.0
    """Of weight one: by how much someone who comes back from idling may go before the least served. Two short requests."""
    idle_kept: int = 65_536
    """Idle nodes that are remembered with what they are ahead; beyond, the longest idle are forgotten."""


class Head(NamedTuple):
    request: Request
    ahead: float
    """Tokens of weight one by which it is ahead of the least served, summed along its path."""


class Standing(NamedTuple):
    """Where a request stands now, and what lies before its start."""

    share: float
    """Of the pool's throughput, as long as those wait who wait now. From 0 to 1."""
    place: int
    """In its own line, from 1."""
    others_first: float
    """Tokens that the rest of the pool gets before its line is the least served again."""


class Charge:
    """What one running request is charged, in milli-tokens. The queue's own; nobody else changes one."""

    __slots__ = ("cost", "is_over", "leaf")

    def __init__(self, leaf: Leaf, cost: int) -> None:
        self.leaf = leaf
        self.cost = cost
        self.is_over = False


class FairQueue:
    def __init__(self, shares: Shares, rules: FairRules | None = None) -> None:
        self._shares = shares
        self._rules = rules or FairRules()
        self._credit = self._rules.credit_tokens
        self._forget_from = min(_FORGET_FROM, self._rules.idle_kept // 4)
        self._turns = Turns(self._credit)
        self._seen = shares.version
        self._system = Node(Band.SYSTEM.value, None, 1.0)
        self._shared = Node("", None, 1.0)
        self._bands: dict[Band, Node] = {Band.SYSTEM: self._system}
        for band in (Band.INTERACTIVE, Band.STANDARD, Band.BATCH):
            weight = as_weight(self._rules.band_weights.get(band, 0.0))
            self._bands[band] = node = Node(band.value, self._shared, weight)
            node.vt = 0.0
        for node in (self._shared, *self._bands.values()):
            node.is_idling = True  # these are never forgotten
        self._leaves: dict[tuple[UserId, KeyId], Leaf] = {}
        """The first of its twins. (A band in the key would double the time of a look: enums hash slowly.)"""
        self._where: dict[LedgerId, Waiting] = {}
        self._of_user: dict[UserId, int] = {}
        self._of_model: dict[str, int] = {}
        self._idle: deque[Node] = deque()
        self._looks = 0

    # What waits

    def __len__(self) -> int:
        return len(self._where)

    def __iter__(self) -> Iterator[Request]:
        return (waiting.request for waiting in self._where.values())

    def __contains__(self, ledger_id: LedgerId) -> bool:
        return ledger_id in self._where

    def get(self, ledger_id: LedgerId) -> Request | None:
        waiting = self._where.get(ledger_id)
        return None if waiting is None else waiting.request

    def waiting_for(self, model: str) -> int:
        return self._of_model.get(model, 0)

    def waiting_of(self, user: UserId) -> int:
        return self._of_user.get(user, 0)

    @property
    def models(self) -> Collection[str]:
        """For which something waits that is not paused."""
        if not self._system.backlogs:
            return self._shared.backlogs.keys()
        return self._system.backlogs.keys() | self._shared.backlogs.keys()

    def push(self, request: Request) -> None:
        """Let it wait, at the place that its arrival gives it in its line."""
        self._add(request, is_restored=False)

    def restore(self, request: Request) -> None:
        """Its grant was in vain, and is settled with 0: it waits before all that came when it did or later."""
        self._add(request, is_restored=True)

    def remove(self, ledger_id: LedgerId) -> bool:
        """Take this one out, wherever it waits. False when it does not."""
        waiting = self._where.get(ledger_id)
        if waiting is None:
            return False
        self._take_out(waiting)
        node: Node | None = waiting.backlog.node
        while node is not None:
            node.present -= 1
            if not node.present and not node.is_idling:
                self._note_idle(node)
            node = node.parent
        if self._looks:
            self._forget_some()
        return True

    # Whose turn it is

    def heads(self, models: Collection[str], window: float, most: int) -> list[Head]:
        """The first of each line that is at most `window` tokens ahead of the least served; at most `most`, the least first.

        The first of the list is the one whose turn it is; with a window of 0 it is the only one. Where something of band
        `system` waits, only that is named, unless the window has no end."""
        found: list[Head] = []
        for root in (self._system, self._shared):
            backlogs = root.backlogs
            if not backlogs:
                continue
            wanted = [model for model in models if model in backlogs]
            if not wanted:
                continue
            found.append(Head(_first(root, wanted), 0.0))
            if len(found) < most and window > 0:
                _widen(root, wanted, window, most, found)
            if len(found) >= most or window != math.inf:
                return found
        return found

    def near(
        self, models: list[str], window: float, most: int, held: Container[BlockName]
    ) -> tuple[Request, Request, float] | None:
        """The one whose turn it is, and of it and those near it the one with most blocks of its prompt among those that are
        `held`, weighed against the turn, with how many tokens it is ahead. None when all that waits is paused.

        Near are those who share with it at the lowest level above users at which there are some, at most `window` tokens
        ahead: this is asked for each start, so it looks through the top of one heap, at `most` of them. A whole window costs
        as much as two blocks. Who has more than half of its prompt there is good enough, and ends the search."""
        node: Node = self._system
        for model in models:
            if model in node.backlogs:
                break
        else:
            node = self._shared
        level: Node | None = None
        first = node
        while type(node) is not Leaf:
            least = least_of(node, models)
            if least is None:
                return None
            if type(least) is not Leaf and len(node.children) > 1:
                level, first = node, least
            node = least
        request = best = _oldest_first(node, models)[0]
        blocks = _matched(best.prefix_hashes, held)
        if level is None or 2 * blocks > len(best.prefix_hashes):
            return request, best, 0.0
        best_score, best_ahead = float(blocks), 0.0
        start = first.vt
        limit, per_token = start + window, _BLOCKS_A_WINDOW / window
        for model in models:
            backlog = level.backlogs.get(model)
            if backlog is None:
                continue
            # Below an entry that is too far ahead all others of the heap are, too.
            heap = backlog.heap
            assert heap is not None
            size, places, looks = len(heap), [0], 2 * most
            for place in places:  # grows while it is looked through
                looks -= 1
                if looks < 0:
                    break
                entry = heap[place]
                if entry[0] > limit:
                    continue
                below = 2 * place + 1
                if below < size:
                    places.append(below)
                    if below + 1 < size:
                        places.append(below + 1)
                child = entry[3]
                vt = child.node.vt
                if child.stamp != entry[2] or vt > limit or child.node is first:
                    continue
                while (inner := child.heap) is not None:
                    entry = inner[0]
                    nearest = entry[3]
                    child = nearest if nearest.stamp == entry[2] and nearest.node.vt <= entry[0] else top(child)
                assert child.head is not None
                other = child.head.request
                hashes = other.prefix_hashes
                most -= 1
                if hashes and hashes[0] in held:
                    blocks = _matched(hashes, held)
                    score = blocks - (vt - start) * per_token
                    if score > best_score:
                        best, best_score, best_ahead = other, score, vt - start
                        if 2 * blocks > len(hashes):
                            return request, best, best_ahead
                if most <= 1:
                    return request, best, best_ahead
        return request, best, best_ahead

    def behind(self, request: Request) -> Iterator[Request]:
        """What waits behind it in its own line."""
        waiting = self._where.get(request.ledger_id)
        behind = None if waiting is None else waiting.after
        while behind is not None:
            after = behind.after
            yield behind.request
            behind = after

    # What is charged

    def start(self, request: Request, cost: int) -> Charge:
        """It waits no longer: it starts, wherever it stood, and is charged this much."""
        waiting = self._where[request.ledger_id]
        self._take_out(waiting)
        leaf = waiting.backlog.node
        assert type(leaf) is Leaf
        if cost < 0:
            cost = 0
        node: Node = leaf
        while (parent := node.parent) is not None:
            if node.vt > parent.clock:
                parent.clock = node.vt
            node.vt += cost * node.pace
            node.reserved += cost
            node = parent
        node.reserved += cost
        return Charge(leaf, cost)

    def pass_by(self, request: Request, cost: int) -> Charge:
        """It starts as it comes, because nothing waits that could use that slot."""
        leaf = self._leaf(request)
        if cost < 0:
            cost = 0
        credit = self._credit
        node: Node = leaf
        while (parent := node.parent) is not None:
            if not node.backlogs:
                floor = floor_of(parent) if parent.backlogs else parent.clock
                if node.vt < floor:  # as `lift` does it
                    node.base = floor
                    low = floor - credit
                    if node.vt < low:
                        node.vt = node.least = low
            if node.vt > parent.clock:
                parent.clock = node.vt
            node.vt += cost * node.pace
            node.reserved += cost
            node.present += 1
            node = parent
        node.reserved += cost
        node.present += 1
        return Charge(leaf, cost)

    def adopt(self, request: Request, cost: int) -> Charge:
        """Someone else started it: it is charged, and says nothing about whose turn it was."""
        leaf = self._leaf(request)
        if cost < 0:
            cost = 0
        node: Node = leaf
        while (parent := node.parent) is not None:
            if node.vt == -math.inf:
                lift(node, parent, self._credit)
            node.vt += cost * node.pace
            node.reserved += cost
            node.present += 1
            node = parent
        node.reserved += cost
        node.present += 1
        return Charge(leaf, cost)

    def extend(self, charge: Charge, cost: int) -> None:
        """It has cost more than was reserved: from now on so much is. Never lowers."""
        more = cost - charge.cost
        if charge.is_over or more <= 0:
            return
        charge.cost = cost
        node: Node | None = charge.leaf
        while node is not None:
            node.vt += more * node.pace
            node.reserved += more
            node = node.parent

    def settle(self, charge: Charge, cost: int) -> None:
        """Its end, and what it did cost: the difference is charged or given back. Told again it changes nothing."""
        if charge.is_over:
            return
        charge.is_over = True
        if cost < 0:
            cost = 0
        held = charge.cost
        charge.cost = cost
        more = cost - held
        node: Node | None = charge.leaf
        while node is not None:
            node.reserved -= held
            node.settled += cost
            node.present -= 1
            if more:
                vt = node.vt + more * node.pace
                if more < 0:
                    # What it was lifted since is not given back twice.
                    node.vt = vt if vt > node.least else node.least
                    if node.backlogs:
                        has_shrunk(node)
                else:
                    node.vt = vt
            if not node.present and not node.is_idling:
                self._note_idle(node)
            node = node.parent
        if self._looks:
            self._forget_some()

    # Questions

    def due(self, request: Request) -> float:
        """The share of the pool that it would get now: by weight, among those who have something waiting. From 0 to 1."""
        share = 1.0
        node: Node = self._leaf(request)
        while (parent := node.parent) is not None:
            share *= node.weight / _load_with(node, parent)
            node = parent
        return share

    def ahead_of(self, request: Request) -> float:
        """Tokens of weight one by which it is ahead of the least served, summed along its path."""
        ahead = 0.0
        node: Node = self._leaf(request)
        while (parent := node.parent) is not None:
            ahead += _lag(node, parent)
            node = parent
        return ahead

    def standing(self, request: Request) -> Standing:
        """For one that waits, or (at the end of its line) for one that might."""
        leaf = self._leaf(request)
        node: Node = leaf
        path = []
        while (parent := node.parent) is not None:
            path.append((node, parent))
            node = parent
        share, others_first = 1.0, 0.0
        for node, parent in reversed(path):
            load = _load_with(node, parent)
            others_first += _lag(node, parent) * (load - node.weight) / share
            share *= node.weight / load
        return Standing(share, self._place(leaf, request), others_first)

    # When admin changes who belongs where

    def reshape(self) -> None:
        """The shares have changed: weights count from the next charge on; who has moved takes along what waits and runs."""
        changes = self._shares.since(self._seen)
        self._seen = self._shares.version
        if changes == []:
            return
        if changes is None or any(change.has_groups for change in changes):
            for band in self._bands.values():
                for node in list(band.within()):
                    if node.name.startswith(_GROUP):
                        group = GroupId(node.name[len(_GROUP) :])
                        self._weigh(node, self._shares.weight_of_group(group), self._shares.is_group_paused(group))
            touched = list(self._all_leaves())
        else:
            users = frozenset[UserId]().union(*(change.users for change in changes))
            keys = frozenset[KeyId]().union(*(change.keys for change in changes))
            touched = [leaf for leaf in self._all_leaves() if leaf.user in users or leaf.key in keys]
        for leaf in touched:
            self._weigh(leaf, self._shares.weight_of_key(leaf.key), False)
            owner = leaf.parent
            assert owner is not None
            self._weigh(owner, self._shares.weight_of_user(leaf.user), self._shares.is_user_paused(leaf.user))
            self._settle_home(self._bands[leaf.band], owner, leaf.hint)

    # For the next leader

    def lags(self) -> Iterator[tuple[str, int]]:
        """(path, milli-tokens of weight one ahead of the clock) of all that differ from someone unknown.

        What is only reserved is left out: its gateways will claim it, and then it is charged again. An only child is left
        out as well: there is nobody to whom it could be ahead."""
        credit = self._credit
        for band in self._bands.values():
            for parent in band.within():
                children = parent.children
                if len(children) < 2 and parent is not band:
                    continue
                clock = parent.clock
                for node in children.values():
                    vt = node.vt
                    if vt == -math.inf:
                        continue
                    ahead = vt - node.reserved * node.pace - clock
                    if ahead > -credit or node.backlogs:
                        yield node.trail or _trail(node), round(ahead * 1000)
        for band in self._bands.values():
            if band.parent is not None:
                yield band.name, round((band.vt - band.reserved * band.pace - band.parent.clock) * 1000)

    def restore_lags(self, lags: Iterable[tuple[str, int]]) -> None:
        """What the leader before knew. What cannot be understood is left out: it is unknown, and no worse off for it."""
        clocks: dict[Node, float] = {}
        for path, ahead_milli in lags:
            node = self._node_at(path.split(SEPARATOR))
            if node is None or node.parent is None:
                continue
            parent = node.parent
            node.vt = parent.clock + ahead_milli / 1000 + node.reserved * node.pace
            if not node.backlogs:
                node.turn = -1
            has_shrunk(node)
            clocks[parent] = min(clocks.get(parent, parent.clock), node.vt + self._credit)
            self._note_idle_from(node)
        for parent, clock in clocks.items():
            parent.clock = clock  # whoever waited that far back is not lifted when it comes again

    # Ledger, for tests and the dump

    @property
    def reserved(self) -> int:
        return self._system.reserved + self._shared.reserved

    @property
    def settled(self) -> int:
        return self._system.settled + self._shared.settled

    @property
    def roots(self) -> tuple[Node, Node]:
        """To look at, not to change."""
        return self._system, self._shared

    # Within

    def _add(self, request: Request, is_restored: bool) -> None:
        leaf = self._leaf(request)
        user, model, arrived_at = request.user, request.model, request.arrived_at
        self._where[request.ledger_id] = waiting = Waiting(request)
        self._of_user[user] = self._of_user.get(user, 0) + 1
        self._of_model[model] = self._of_model.get(model, 0) + 1
        node: Node | None = leaf
        while node is not None:
            node.present += 1
            node = node.parent
        backlog = leaf.backlogs.get(model)
        if backlog is None:
            waiting.backlog = backlog = Backlog(leaf, model)
            backlog.count = 1
            backlog.head = backlog.tail = waiting
            self._turns.join(backlog)
            return
        waiting.backlog = backlog
        backlog.count += 1
        before: Waiting | None
        if is_restored:
            after = backlog.head
            while after is not None and after.request.arrived_at < arrived_at:
                after = after.after
            before = backlog.tail if after is None else after.before
        else:
            before = backlog.tail
            while before is not None and before.request.arrived_at > arrived_at:
                before = before.before
            after = backlog.head if before is None else before.after
        waiting.before, waiting.after = before, after
        if before is None:
            backlog.head = waiting
        else:
            before.after = waiting
        if after is None:
            backlog.tail = waiting
        else:
            after.before = waiting

    def _take_out(self, waiting: Waiting) -> None:
        request, backlog = waiting.request, waiting.backlog
        user, model = request.user, request.model
        del self._where[request.ledger_id]
        left = self._of_user[user] - 1
        if left:
            self._of_user[user] = left
        else:
            del self._of_user[user]
        left = self._of_model[model] - 1
        if left:
            self._of_model[model] = left
        else:
            del self._of_model[model]
        before, after = waiting.before, waiting.after
        if before is None:
            backlog.head = after
        else:
            before.after = after
        if after is None:
            backlog.tail = before
        else:
            after.before = before
        backlog.count -= 1
        if not backlog.count:
            self._turns.leave(backlog)

    def _leaf(self, request: Request) -> Leaf:
        leaf = self._leaves.get((request.user, request.key))
        band = request.band
        while leaf is not None and leaf.band is not band:
            leaf = leaf.twin
        if leaf is None:
            return self._new_leaf(request)
        if leaf.hint != request.group and not self._shares.knows(request.user):
            leaf.hint = request.group
            if leaf.parent is not None:
                self._settle_home(self._bands[band], leaf.parent, request.group)
        return leaf

    def _all_leaves(self) -> Iterator[Leaf]:
        for first in self._leaves.values():
            leaf: Leaf | None = first
            while leaf is not None:
                yield leaf
                leaf = leaf.twin

    def _new_leaf(self, request: Request) -> Leaf:
        band, user, key = request.band, request.user, request.key
        home = self._home(self._bands[band], self._shares.groups_of(request))
        owner = home.children.get(_USER + user)
        if owner is None:
            owner = self._new_user(home, user)
        leaf = self._new_key(band, owner, user, key)
        leaf.hint = request.group
        return leaf

    def _home(self, band: Node, groups: tuple[GroupId, ...]) -> Node:
        node = band
        for group in groups:
            inner = node.children.get(_GROUP + group)
            if inner is None:
                inner = Node(
                    _GROUP + group, node, self._shares.weight_of_group(group), self._shares.is_group_paused(group)
                )
            node = inner
        return node

    def _new_user(self, home: Node, user: UserId) -> Node:
        return Node(_USER + user, home, self._shares.weight_of_user(user), self._shares.is_user_paused(user))

    def _new_key(self, band: Band, owner: Node, user: UserId, key: KeyId) -> Leaf:
        leaf = Leaf(_KEY + key, owner, self._shares.weight_of_key(key), band, user, key)
        leaf.twin = self._leaves.get((user, key))
        self._leaves[user, key] = leaf
        return leaf

    def _place(self, leaf: Leaf, request: Request) -> int:
        waiting = self._where.get(request.ledger_id)
        if waiting is None:
            backlog = leaf.backlogs.get(request.model)
            return 1 if backlog is None else backlog.count + 1
        place = 1
        while (before := waiting.before) is not None:
            waiting = before
            place += 1
        return place

    def _weigh(self, node: Node, weight: float, is_paused: bool) -> None:
        if weight == node.weight and is_paused == node.is_paused:
            return
        if weight != node.weight:
            parent = node.parent
            if parent is not None and node.backlogs and not node.is_paused:
                parent.load += weight - node.weight
            node.weight = weight
            node.pace = 0.001 / weight
        if is_paused and not node.is_paused:
            self._turns.detach(node)
            node.is_paused = True
        elif node.is_paused and not is_paused:
            node.is_paused = False
            self._turns.attach(node)

    def _settle_home(self, band: Node, owner: Node, hint: GroupId) -> None:
        """Move a user to where he belongs now, if that is elsewhere. What he used before stays where he used it."""
        user = UserId(owner.name[len(_USER) :])
        groups = self._shares.path_of_user(user, hint)
        before = owner.parent
        assert before is not None
        if [node.name for node in before.path()] == [band.name, *(_GROUP + group for group in groups)]:
            return
        home = self._home(band, groups)
        there = home.children.get(owner.name)
        if there is None:
            self._move(owner, home, band)
            return
        # Policy did not know him, and gateways took him for a member of two groups: what he has in both is one user's.
        for leaf in list(owner.children.values()):
            self._move(leaf, there, band)

    def _move(self, node: Node, home: Node, band: Node) -> None:
        """Under another parent, where it is as far ahead of the others as it was; with what is reserved in it and waits."""
        before = node.parent
        assert before is not None
        ahead = node.vt - before.clock
        held, present, used = node.reserved, node.present, node.settled
        self._turns.detach(node)
        del before.children[node.name]
        before.gone += used
        for inner in node.within():
            inner.gone = 0
            inner.settled = 0
        steps: Node | None = before
        while steps is not None and steps is not band:
            steps.reserved -= held
            steps.present -= present
            steps.vt = max(steps.vt - held * steps.pace, steps.least)
            has_shrunk(steps)
            steps = steps.parent
        self._note_idle_from(before)
        steps = home
        while steps is not None and steps is not band:
            if steps.vt == -math.inf and steps.parent is not None and present:
                lift(steps, steps.parent, self._credit)
            steps.reserved += held
            steps.present += present
            steps.vt += held * steps.pace
            steps = steps.parent
        node.parent = home
        for inner in node.within():
            inner.trail = None
        home.children[node.name] = node
        node.vt = home.clock + ahead
        node.base = node.least = -math.inf
        self._turns.attach(node)
        self._note_idle_from(node)

    def _node_at(self, names: list[str]) -> Node | None:
        """The node of this path, made where there is none. None for a path that is none."""
        try:
            band = Band(names[0])
        except ValueError:
            return None
        node = self._bands[band]
        owner: UserId | None = None
        for name in names[1:]:
            kind, rest = name[:2], name[2:]
            inner = node.children.get(name)
            if owner is not None:
                if kind != _KEY or type(node) is Leaf:
                    return None
                inner = inner or self._new_key(band, node, owner, KeyId(rest))
            elif kind == _GROUP:
                inner = inner or self._home(node, (GroupId(rest),))
            elif kind == _USER:
                owner = UserId(rest)
                inner = inner or self._new_user(node, owner)
            else:
                return None
            node = inner
        return node

    # Forgetting

    def _note_idle(self, node: Node) -> None:
        node.is_idling = True
        self._idle.append(node)
        if len(self._idle) > self._forget_from:
            self._looks += _LOOKS_PER_IDLE

    def _note_idle_from(self, node: Node) -> None:
        steps: Node | None = node
        while steps is not None:
            if not steps.present and not steps.is_idling:
                self._note_idle(steps)
            steps = steps.parent

    def _forget_some(self) -> None:
        """Look at the longest idle: who is not ahead is like someone unknown, and need not be remembered."""
        idle = self._idle
        looks = min(_FORGET_AT_ONCE, self._looks, len(idle))
        self._looks -= looks
        for _ in range(looks):
            node = idle.popleft()
            parent = node.parent
            if parent is None or parent.children.get(node.name) is not node:
                continue  # forgotten with what was above it
            if node.present:
                node.is_idling = False
            elif node.vt <= parent.clock - self._credit or len(idle) >= self._rules.idle_kept:
                self._forget(node, parent)
            else:
                idle.append(node)

    def _forget(self, node: Node, parent: Node) -> None:
        del parent.children[node.name]
        parent.gone += node.settled
        for one in node.within():
            one.parent = None
            if type(one) is Leaf:
                self._drop_leaf(one)

    def _drop_leaf(self, leaf: Leaf) -> None:
        where = leaf.user, leaf.key
        first = self._leaves[where]
        if first is not leaf:
            while first.twin is not leaf:
                assert first.twin is not None
                first = first.twin
            first.twin = leaf.twin
        elif leaf.twin is not None:
            self._leaves[where] = leaf.twin
        else:
            del self._leaves[where]


def _first(root: Node, models: list[str]) -> Request:
    """Whose turn it is: down along the least served."""
    if len(models) == 1:
        backlog = root.backlogs[models[0]]
        while backlog.heap is not None:
            backlog = top(backlog)
        assert backlog.head is not None
        return backlog.head.request
    node = root
    while type(node) is not Leaf:
        least = least_of(node, models)
        assert least is not None
        node = least
    return _oldest_first(node, models)[0]


def _oldest_first(leaf: Node, models: list[str]) -> list[Request]:
    """The heads of its lines."""
    backlogs = leaf.backlogs
    heads = [backlogs[model].head for model in models if model in backlogs]
    requests = [head.request for head in heads if head is not None]
    if len(requests) > 1:
        requests.sort(key=lambda request: request.arrived_at)
    return requests


def _widen(root: Node, models: list[str], window: float, most: int, found: list[Head]) -> None:
    """Add to the first the others within the window, the least ahead first.

    A heap is looked through as the tree that it is: what lies below an entry is further ahead than it says. An entry that
    is older than its node's virtual time says too little, and is looked at again when its turn comes by the right one."""
    first = found[-1].request
    order = 0
    looks = most * _LOOK_PER_HEAD
    met: set[Node] = set()
    # (ahead at least, order, the node where that is exact, heap, index in it, ahead of the parent, least vt in it)
    frontier: list[tuple[float, int, Node | None, list[Entry], int, float, float]] = []
    node: Node | None = root
    ahead = 0.0
    while True:
        if type(node) is Leaf:
            for request in _oldest_first(node, models):
                if request is not first:
                    found.append(Head(request, ahead))
                    if len(found) >= most:
                        return
        elif node is not None:
            least_node = least_of(node, models)
            assert least_node is not None
            for model in models:
                backlog = node.backlogs.get(model)
                if backlog is not None:
                    assert backlog.heap is not None
                    order += 1
                    heappush(frontier, (ahead, order, None, backlog.heap, 0, ahead, least_node.vt))
        if not frontier or not looks:
            return
        looks -= 1
        ahead, _, node, heap, at, above, least = heappop(frontier)
        if ahead > window:
            return
        if node is not None:
            continue
        for below in (2 * at + 1, 2 * at + 2):
            if below < len(heap):
                order += 1
                heappush(frontier, (max(ahead, above + heap[below][0] - least), order, None, heap, below, above, least))
        entry = heap[at]
        found_node = entry[3].node
        if entry[3].stamp != entry[2] or found_node in met:
            continue
        met.add(found_node)
        exact = above + max(0.0, found_node.vt - least)
        if exact > ahead:
            order += 1
            heappush(frontier, (exact, order, found_node, heap, at, above, least))
        else:
            node = found_node


def _matched(hashes: Sequence[BlockName], held: Container[BlockName]) -> int:
    """How many of them, from the first, are held."""
    matched = 0
    for block in hashes:
        if block not in held:
            break
        matched += 1
    return matched


def _trail(node: Node) -> str:
    trail = node.trail = SEPARATOR.join(step.name for step in node.path())
    return trail


def _load_with(node: Node, parent: Node) -> float:
    """The weights of those who share at this level now, this one among them."""
    if node.backlogs and not node.is_paused:
        return max(parent.load, node.weight)
    return (parent.load if parent.backlogs else 0.0) + node.weight


def _lag(node: Node, parent: Node) -> float:
    least = least_of(parent, parent.backlogs)
    return 0.0 if least is None else max(0.0, node.vt - least.vt)
