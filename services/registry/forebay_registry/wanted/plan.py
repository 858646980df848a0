"""What an order makes of the desired state: the state after it, or every reason why it cannot be. Pure; storing it, and the
memory in which it then is so, are `roster`'s part.

An entry is meant whole: a field that it does not name is as usual afterwards. What no entry names stays, unless what is not
named is to go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from forebay.engine_addresses import refusal
from forebay.plain_message import Problem
from forebay_registry.backend import BackendId, Desired, Node, NodeId, Pool
from forebay_registry.wanted.specs import SECTIONS, FleetOrder, WantedBackend, path_of
from forebay_registry.wanted.state import Change, Kind, Wanted


@dataclass(frozen=True, slots=True)
class Plan:
    after: Wanted
    problems: tuple[Problem, ...]
    """With any of them, `after` is not to be."""
    notes: tuple[str, ...]
    """Sentences for whoever gave the order."""


@dataclass(frozen=True, slots=True)
class FleetAnswer:
    """What became of an order about the fleet as a whole, or would become of it."""

    version: int
    """Of the desired state, afterwards."""
    changes: tuple[Change, ...] = ()
    problems: tuple[Problem, ...] = ()
    """With any of them nothing was changed."""
    notes: tuple[str, ...] = ()


def plan(
    order: FleetOrder,
    before: Wanted,
    *,
    prune: bool,
    actor: str,
    now: float,
    new_id: Callable[[str], str],
    allow_link_local: bool,
) -> Plan:
    """`new_id` makes an id with the prefix that it is given."""
    notes: list[str] = []
    nodes = _nodes_after(order, before, prune=prune, actor=actor, now=now, new_id=new_id, notes=notes)
    backends, problems = _backends_after(order, before, nodes, prune=prune, actor=actor, now=now, new_id=new_id)
    pools = {pool.name: pool for pool in order.pools}
    models = {model.name: model for model in order.models}
    after = Wanted(
        before.version,
        backends,
        nodes,
        pools if prune else {**before.pools, **pools},
        models if prune else {**before.models, **models},
    )
    problems += _shared_addresses(order, backends.values())
    problems += _shared_doors(order, after.pools)
    if not allow_link_local:
        problems += _refused_addresses(order, before.backends)
    return Plan(after, tuple(problems), tuple(notes))


def without(order: FleetOrder, problems: Iterable[Problem]) -> FleetOrder:
    """The order without the entries that have them."""
    paths = [problem.path for problem in problems]

    def is_well(kind: Kind, name: str) -> bool:
        path = path_of(kind, name)
        return not any(at == path or at.startswith(f"{path}.") for at in paths)

    return FleetOrder(
        tuple(node for node in order.nodes if is_well(Kind.NODE, node.name)),
        tuple(wanted for wanted in order.backends if is_well(Kind.BACKEND, wanted.backend.name)),
        tuple(pool for pool in order.pools if is_well(Kind.POOL, pool.name)),
        tuple(model for model in order.models if is_well(Kind.MODEL, model.name)),
    )


def _nodes_after(
    order: FleetOrder,
    before: Wanted,
    *,
    prune: bool,
    actor: str,
    now: float,
    new_id: Callable[[str], str],
    notes: list[str],
) -> dict[NodeId, Node]:
    by_name = {node.name: node for node in before.nodes.values()}
    named = {node.name for node in order.nodes}
    after: dict[NodeId, Node] = {}
    for node in before.nodes.values():
        if node.name in named or node.has_agent or not prune:
            after[node.id] = node
        if prune and node.has_agent and node.name not in named:
            notes.append(f"The node {node.name} is not named and stays all the same: it has an agent.")
    for wanted in order.nodes:
        held = by_name.get(wanted.name)
        if held is not None:
            after[held.id] = replace(held, labels=wanted.labels, note=wanted.note)
        else:
            node = replace(wanted, id=NodeId(new_id("no-")), enrolled_at=now, enrolled_by=actor)
            after[node.id] = node
    return after


def _backends_after(
    order: FleetOrder,
    before: Wanted,
    nodes: Mapping[NodeId, Node],
    *,
    prune: bool,
    actor: str,
    now: float,
    new_id: Callable[[str], str],
) -> tuple[dict[BackendId, Desired], list[Problem]]:
    by_name = {backend.name: backend for backend in before.backends.values()}
    node_ids = {node.name: node.id for node in nodes.values()}
    # What was found by itself also goes by itself: no file has to name it.
    after = {
        id_: backend if backend.node_id is None or backend.node_id in nodes else replace(backend, node_id=None)
        for id_, backend in before.backends.items()
        if not prune or backend.found_by
    }
    problems: list[Problem] = []
    for entry in order.backends:
        if entry.node and entry.node not in node_ids:
            problems.append(Problem(path_of(Kind.BACKEND, entry.backend.name, "node"), _no_node(entry, before)))
        held = by_name.get(entry.backend.name)
        wanted = replace(
            entry.backend,
            id=held.id if held is not None else BackendId(new_id("be-")),
            node_id=node_ids.get(entry.node),
            changed_by=actor,
            changed_at=now,
        )
        if held is not None and replace(wanted, changed_by=held.changed_by, changed_at=held.changed_at) == held:
            wanted = held
        after[wanted.id] = wanted
    return after, problems


def _no_node(entry: WantedBackend, before: Wanted) -> str:
    if any(node.name == entry.node for node in before.nodes.values()):
        return f"The node {entry.node} would be removed: name it under {SECTIONS[Kind.NODE]} as well."
    return f"There is no node {entry.node!r}: name it under {SECTIONS[Kind.NODE]}, or enrol it first."


def _shared_addresses(order: FleetOrder, after: Iterable[Desired]) -> list[Problem]:
    """Two names for one engine would give its slots away twice."""
    at: dict[str, list[str]] = {}
    for backend in after:
        at.setdefault(backend.url, []).append(backend.name)
    problems = []
    for entry in order.backends:
        others = [name for name in at[entry.backend.url] if name != entry.backend.name]
        if others and entry.backend.url:
            why = f"The backend {others[0]} is at {entry.backend.url} already; an engine can be registered once."
            problems.append(Problem(path_of(Kind.BACKEND, entry.backend.name, "url"), why))
    return problems


def _shared_doors(order: FleetOrder, after: Mapping[str, Pool]) -> list[Problem]:
    """A host or a path leads to one pool."""
    of_host: dict[str, list[str]] = {}
    of_prefix: dict[str, list[str]] = {}
    for pool in after.values():
        for host in pool.hosts:
            of_host.setdefault(host, []).append(pool.name)
        if pool.path_prefix:
            of_prefix.setdefault(pool.path_prefix, []).append(pool.name)
    problems = []
    for pool in order.pools:
        doors = [("hosts", host, of_host[host]) for host in pool.hosts]
        if pool.path_prefix:
            doors.append(("path_prefix", pool.path_prefix, of_prefix[pool.path_prefix]))
        for field, door, names in doors:
            others = [name for name in names if name != pool.name]
            if others:
                why = f"{door} leads to the pool {others[0]} already."
                problems.append(Problem(path_of(Kind.POOL, pool.name, field), why))
    return problems


def _refused_addresses(order: FleetOrder, before: Mapping[BackendId, Desired]) -> list[Problem]:
    """Of those that are named anew: what stands there already was allowed once."""
    known = {backend.name: backend.url for backend in before.values()}
    return [
        Problem(path_of(Kind.BACKEND, entry.backend.name, "url"), f"{why}.")
        for entry in order.backends
        if known.get(entry.backend.name) != entry.backend.url and (why := refusal(entry.backend.url)) is not None
    ]
