"""What becomes of what was found. Pure: offers, backends and what is remembered come in, standings and steps go out.

An operator's word always goes first. A backend is the discovery's own only while nobody else has changed it; one that an
operator removed does not come back by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from urllib.parse import urlsplit

from forebay_registry.backend import BackendId, Desired, NodeId
from forebay_registry.discovery.offers import MOST_ENGINES, FoundBy, Offer

ACTOR = "discovery"
"""Who wants what was added by itself."""
_MOST_NAME = 63
_CHANGE_EVERY_S = 10.0
"""An agent that says something else each time would make a version of the fleet of each word."""


class Standing(StrEnum):
    SUGGESTED = "suggested"
    ADDED = "added"
    DECLARED = "declared"
    TURNED_AWAY = "turned_away"
    NOT_POSSIBLE = "not_possible"


@dataclass(frozen=True, slots=True)
class Judged:
    offer: Offer
    standing: Standing
    backend: str = ""
    """Name of the backend that it is."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is so now."""

    backends: Sequence[Desired]
    nodes: Mapping[str, NodeId]
    """Name → id."""
    remembered: Mapping[str, str]
    """Address of what was added by itself → who found it."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Backends of which it is known that nobody finds them any more, and since when."""

    since: Mapping[BackendId, float]
    """Later than it was by the time in which nobody could tell."""
    at: float | None = None
    """When it was known last."""

    def due(self, backend: Desired, now: float, forget_s: Mapping[str, float]) -> bool:
        since, stays_s = self.since.get(backend.id), forget_s.get(backend.found_by)
        return since is not None and stays_s is not None and now - since >= stays_s


@dataclass(frozen=True, slots=True)
class Steps:
    add: tuple[Offer, ...] = ()
    """Each under a name that is free."""
    change: tuple[tuple[Desired, Offer], ...] = ()
    remove: tuple[Desired, ...] = ()
    remember: tuple[tuple[str, str], ...] = ()
    """(address, who found it) of own backends that are not remembered yet: a crash came between."""

    def __bool__(self) -> bool:
        return bool(self.add or self.change or self.remove or self.remember)


def is_own(backend: Desired) -> bool:
    return bool(backend.found_by) and backend.changed_by == ACTOR


def judge(offers: Iterable[Offer], fleet: Fleet) -> tuple[Judged, ...]:
    """By name, each engine once."""
    at = {b.url: b for b in fleet.backends}
    # Without pods: each has an address of its own, and all of a node may listen on the same port.
    on = {
        (b.node_id, port): b
        for b in fleet.backends
        if b.node_id is not None and b.found_by != FoundBy.KUBERNETES and (port := _port(b.url)) is not None
    }
    judged: dict[str, Judged] = {}
    for offer in sorted(offers, key=lambda o: (o.name, o.url)):
        if offer.node and offer.node not in fleet.nodes:  # a host of Kubernetes' that is no node of ours
            offer = replace(offer, node="", gpu_indices=())
        held = _held(offer, at, on, fleet.nodes)
        key = held.id if held is not None else offer.url or f"{offer.node}:{offer.port}"
        if key in judged:
            continue  # two found the same engine
        if held is not None:
            judged[key] = Judged(offer, Standing.ADDED if is_own(held) else Standing.DECLARED, held.name)
        elif not offer.url:
            judged[key] = Judged(offer, Standing.NOT_POSSIBLE)
        elif any(url in fleet.remembered for url in (offer.url, *offer.also_at)):
            judged[key] = Judged(offer, Standing.TURNED_AWAY)
        else:
            judged[key] = Judged(offer, Standing.SUGGESTED)
    return tuple(judged.values())


def plan(judged: Sequence[Judged], fleet: Fleet, silence: Silence, now: float, forget_s: Mapping[str, float]) -> Steps:
    """`forget_s`: who finds → how long what is gone stays a backend."""
    by_name = {b.name: b for b in fleet.backends}
    taken = set(by_name)
    add, change = [], []
    own = [b for b in fleet.backends if is_own(b)]
    by_agents = Counter(b.node_id for b in own if b.found_by == FoundBy.AGENT)
    for one in judged:
        offer = one.offer
        if one.standing is Standing.SUGGESTED and offer.is_auto:
            if offer.found_by is FoundBy.AGENT:
                node_id = fleet.nodes.get(offer.node)
                if by_agents[node_id] >= MOST_ENGINES:
                    continue  # an agent that names other ports all the time would fill the fleet
                by_agents[node_id] += 1
            name = _free(offer.name, taken)
            taken.add(name)
            add.append(replace(offer, name=name))
        elif one.standing is Standing.ADDED:
            held = by_name[one.backend]
            wanted = _kept_up(held, offer, fleet.nodes)
            rests = 0.0 <= now - held.changed_at < _CHANGE_EVERY_S
            if held.found_by == offer.found_by and wanted is not None and not rests:
                change.append((held, wanted))
    remove = tuple(b for b in own if silence.due(b, now, forget_s))
    staying = [b for b in own if b not in remove]
    return Steps(
        tuple(add),
        tuple(change),
        remove,
        tuple((b.url, b.found_by) for b in staying if b.url not in fleet.remembered),
    )


def still(
    judged: Iterable[Judged],
    fleet: Fleet,
    before: Silence,
    now: float,
    *,
    heard_nodes: Iterable[NodeId],
    cluster_known: bool,
) -> Silence:
    """The silence now. `heard_nodes`: whose agents looked for engines lately; of what stands elsewhere nothing is known, and
    what was known of it stays as it was."""
    found = {one.backend for one in judged if one.backend}
    passed_s = max(0.0, now - before.at) if before.at is not None else 0.0
    heard = set(heard_nodes)
    since = {}
    for backend in fleet.backends:
        if not is_own(backend) or backend.name in found:
            continue
        knows = cluster_known if backend.found_by == FoundBy.KUBERNETES else backend.node_id in heard
        if knows:
            since[backend.id] = before.since.get(backend.id, now)
        elif backend.id in before.since:
            since[backend.id] = before.since[backend.id] + passed_s
    return Silence(since, now)


def free_name(offer: Offer, backends: Iterable[Desired]) -> str:
    return _free(offer.name, {b.name for b in backends})


def _held(
    offer: Offer,
    at: Mapping[str, Desired],
    on: Mapping[tuple[NodeId, int], Desired],
    nodes: Mapping[str, NodeId],
) -> Desired | None:
    """The backend that this engine is, by any of its addresses, or by its node and port, where its agent found it."""
    for url in (offer.url, *offer.also_at):
        if url in at:
            return at[url]
    node_id = nodes.get(offer.node) if offer.found_by is FoundBy.AGENT else None
    return on.get((node_id, offer.port)) if node_id is not None else None


def _kept_up(held: Desired, offer: Offer, nodes: Mapping[str, NodeId]) -> Offer | None:
    """What it should become; None: it is as it should be.

    GPUs are only added: an engine that unloads its models holds none for a while, and it is the same engine."""
    node_id = nodes.get(offer.node)
    gpus, url, kind = offer.gpu_indices, offer.url or held.url, offer.kind or held.kind
    if node_id == held.node_id and gpus != held.gpu_indices:
        gpus = tuple(sorted({*gpus, *held.gpu_indices}))
    # An agent knows nothing of these.
    is_said = offer.found_by is FoundBy.KUBERNETES
    slots, names = (offer.slots, offer.model_names) if is_said else (held.slots, held.model_names)
    now = (held.url, held.kind, held.pool, held.slots, held.node_id, held.gpu_indices, held.model_names)
    if now == (url, kind, offer.pool, slots, node_id, gpus, names):
        return None
    return replace(offer, name=held.name, url=url, kind=kind, slots=slots, gpu_indices=gpus, model_names=names)


def _free(name: str, taken: set[str]) -> str:
    number, free = 2, name
    while free in taken:
        free = f"{name[: _MOST_NAME - len(str(number)) - 1]}-{number}"
        number += 1
    return free


@lru_cache(maxsize=8192)
def _port(url: str) -> int | None:
    try:
        parts = urlsplit(url)
        return parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
