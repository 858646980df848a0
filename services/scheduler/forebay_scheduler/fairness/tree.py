"""The fair tree: nodes that share what their parent gets by weight, each with its virtual time and its ledger.

A node's `vt` is the cost charged to it over its weight, in tokens; among siblings with a backlog the least is next. A
parent's `clock` is the latest start time of any child, and never goes back. For each model an inner node has a heap of those
children that have something waiting for it. An entry is never moved: a child whose `vt` has grown since is put right when
its entry comes to the top; one whose `vt` has shrunk gets a new entry, and the old one is dropped where it is met.

The start-time fair queue is that of Goyal, Vin and Cheng (1996), with the lift of VTC (Sheng et al., OSDI 2024) for those
who come back from idling. What waits in the leaves, and whom they belong to, is the fair queue's business."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush, heapreplace

from forebay_scheduler.request import Band, GroupId, KeyId, Request, UserId

_SPARE_ENTRIES = 16
"""A heap is swept when it has more dead entries than living ones, and this many more."""


class Waiting:
    """One request in its line."""

    __slots__ = ("after", "backlog", "before", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.backlog: Backlog
        self.before: Waiting | None = None
        self.after: Waiting | None = None


class Backlog:
    """What waits for one model within one node: a leaf's line of requests, or the children that have some."""

    __slots__ = ("count", "entered_vt", "head", "heap", "model", "node", "stamp", "tail")

    def __init__(self, node: Node, model: str) -> None:
        self.node = node
        self.model = model
        self.count = 0
        """Requests of a leaf, else children that are ready."""
        self.stamp = 0
        """Of the one entry that lives in the parent's heap; any other is dead."""
        self.entered_vt = math.inf
        """What the living entry says; infinite when there is none."""
        self.heap: list[Entry] | None = None
        """None in a leaf."""
        self.head: Waiting | None = None
        self.tail: Waiting | None = None

    def __lt__(self, other: Backlog) -> bool:
        return False  # entries of one node and one virtual time: either will do

    def entry(self) -> Entry:
        """A new one, which takes the place of the last."""
        node = self.node
        self.stamp += 1
        self.entered_vt = node.vt
        return (node.vt, node.turn, self.stamp, self)

    def withdraw(self) -> None:
        """Whatever entry it has is dead."""
        self.stamp += 1
        self.entered_vt = math.inf


Entry = tuple[float, int, int, Backlog]
"""(vt when it was made, turn, stamp, the child's backlog)."""


class Node:
    """A band, group or user (a key is a Leaf). Costs are milli-tokens, virtual times tokens of weight one."""

    __slots__ = (
        "backlogs",
        "base",
        "children",
        "clock",
        "gone",
        "is_idling",
        "is_paused",
        "least",
        "load",
        "name",
        "pace",
        "parent",
        "present",
        "reserved",
        "settled",
        "trail",
        "turn",
        "vt",
        "weight",
    )

    def __init__(self, name: str, parent: Node | None, weight: float, is_paused: bool = False) -> None:
        self.name = name
        self.parent = parent
        self.weight = weight
        self.pace = 0.001 / weight
        self.is_paused = is_paused
        self.vt = -math.inf
        """Until it first has something to start."""
        self.base = -math.inf
        """The floor it stood on when it last came with credit: what it was lent does not lower the floor for others."""
        self.least = -math.inf
        """Where it was last lifted to: a refund of what was charged before does not take it lower."""
        self.turn = 0
        """Orders siblings of the same virtual time: since when it has had a backlog. Negative: not yet under this leader."""
        self.clock = 0.0
        self.backlogs: dict[str, Backlog] = {}
        """By model, those that are not empty."""
        self.children: dict[str, Node] = {}
        self.load = 0.0
        """The weights of the children that are ready."""
        self.reserved = 0
        self.settled = 0
        self.gone = 0
        """What was settled by children that have left or were forgotten."""
        self.present = 0
        """Requests within that wait or run."""
        self.is_idling = False
        self.trail: str | None = None
        """Its path, once somebody has asked for it."""
        """It stands in the line of those to be forgotten."""
        if parent is not None:
            parent.children[name] = self

    @property
    def charged(self) -> int:
        return self.settled + self.reserved

    def path(self) -> list[Node]:
        """From the band to here."""
        nodes: list[Node] = []
        node: Node | None = self
        while node is not None and node.name:
            nodes.append(node)
            node = node.parent
        nodes.reverse()
        return nodes

    def within(self) -> Iterator[Node]:
        """It and all below it, parents first."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())


class Leaf(Node):
    """One key of one user in one band."""

    __slots__ = ("band", "hint", "key", "twin", "user")

    def __init__(self, name: str, parent: Node, weight: float, band: Band, user: UserId, key: KeyId) -> None:
        Node.__init__(self, name, parent, weight)
        self.band = band
        self.user = user
        self.key = key
        self.hint = GroupId("")
        """The group that the gateway named, where policy knows no better."""
        self.twin: Leaf | None = None
        """The same key in another band."""


def top(backlog: Backlog) -> Backlog:
    """Of the child with the least virtual time among those ready with this model."""
    heap = backlog.heap
    assert heap is not None
    while True:
        entry = heap[0]
        child = entry[3]
        if child.stamp != entry[2]:
            heappop(heap)
        elif child.node.vt > entry[0]:
            heapreplace(heap, child.entry())
        else:
            return child


def least_of(parent: Node, models: Iterable[str]) -> Node | None:
    """The child with the least virtual time among those ready with any of these models."""
    best: Node | None = None
    backlogs = parent.backlogs
    for model in models:
        backlog = backlogs.get(model)
        if backlog is not None:
            child = top(backlog).node
            if best is None or child.vt < best.vt or (child.vt == best.vt and child.turn < best.turn):
                best = child
    return best


def floor_of(parent: Node) -> float:
    """Where a newcomer stands: with the least served of those that have a backlog, credit not counted."""
    best = least_of(parent, parent.backlogs)
    if best is None:
        return parent.clock
    return best.vt if best.vt > best.base else best.base


def lift(node: Node, parent: Node, credit: float) -> None:
    """It comes back from idling: it may be ahead of the others' need by its credit, and no more."""
    floor = floor_of(parent) if parent.backlogs else parent.clock
    if node.vt < floor:
        node.base = floor
        low = floor - credit
        if node.vt < low:
            node.vt = node.least = low


def has_shrunk(node: Node) -> None:
    """Its virtual time went down: where its entry stands too far back it gets a new one."""
    parent, vt = node.parent, node.vt
    if parent is None:
        return
    for model, backlog in node.backlogs.items():
        if vt < backlog.entered_vt < math.inf:
            _enter(parent.backlogs[model], backlog.entry())


class Turns:
    """What the nodes of one pool have in common: the credit, and the order in which they came to have a backlog."""

    __slots__ = ("credit", "last")

    def __init__(self, credit: float) -> None:
        self.credit = credit
        self.last = 0

    def join(self, backlog: Backlog) -> None:
        """It is no longer empty: tell those above, as far as it is news to them."""
        model = backlog.model
        node = backlog.node
        while True:
            is_first = not node.backlogs
            node.backlogs[model] = backlog
            parent = node.parent
            if parent is None or node.is_paused:
                return
            if is_first:
                self._come(node, parent)
            entry = backlog.entry()
            above = parent.backlogs.get(model)
            if above is not None:
                above.count += 1
                _enter(above, entry)
                return
            backlog = Backlog(parent, model)
            backlog.count = 1
            backlog.heap = [entry]
            node = parent

    def leave(self, backlog: Backlog) -> None:
        """It is empty. What its parent's heap still holds of it is dead."""
        model = backlog.model
        while True:
            node = backlog.node
            del node.backlogs[model]
            parent = node.parent
            if parent is None or node.is_paused:
                return
            backlog.withdraw()
            if not node.backlogs:
                parent.load -= node.weight
            backlog = parent.backlogs[model]
            backlog.count -= 1
            if backlog.count:
                return

    def detach(self, node: Node) -> None:
        """Its parent counts on it no longer, for any model: it is to be paused, weighed anew or moved."""
        parent = node.parent
        if parent is None or node.is_paused or not node.backlogs:
            return
        parent.load -= node.weight
        for model, backlog in node.backlogs.items():
            backlog.withdraw()
            above = parent.backlogs[model]
            above.count -= 1
            if not above.count:
                self.leave(above)

    def attach(self, node: Node) -> None:
        """The opposite, with whatever backlog it has."""
        parent = node.parent
        if parent is None or node.is_paused or not node.backlogs:
            return
        self._come(node, parent)
        for model, backlog in node.backlogs.items():
            entry = backlog.entry()
            above = parent.backlogs.get(model)
            if above is None:
                above = Backlog(parent, model)
                above.heap = [entry]
                above.count = 1
                self.join(above)
            else:
                above.count += 1
                _enter(above, entry)

    def _come(self, node: Node, parent: Node) -> None:
        if node.turn >= 0:
            lift(node, parent, self.credit)
        else:
            # As the leader before left it: those of its queue come one by one, and the first is no floor for the others.
            node.vt = max(node.vt, parent.clock - self.credit)
        self.last += 1
        node.turn = self.last
        if parent.backlogs:
            parent.load += node.weight
        else:
            parent.load = node.weight  # nobody was ready: what rounding had left over ends here


def _enter(backlog: Backlog, entry: Entry) -> None:
    heap = backlog.heap
    assert heap is not None
    heappush(heap, entry)
    if len(heap) > 2 * backlog.count + _SPARE_ENTRIES:
        heap[:] = [one for one in heap if one[3].stamp == one[2]]
        heapify(heap)
