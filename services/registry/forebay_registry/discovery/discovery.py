"""The discovery at work: hears what agents and Kubernetes find, and lets it become suggestions or backends.

What becomes of each is decided in `decide`; every change goes through the roster, as an operator's would."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from forebay.clock import Clock
from forebay.engine_addresses import refusal
from forebay.errors import BadInput, ForebayError, NotFound, NotPossible, Unavailable
from forebay.wire.v1.telemetry_pb2 import TelemetrySample
from forebay_registry.backend import Desired, Kept, NodeId
from forebay_registry.discovery import decide
from forebay_registry.discovery.decide import ACTOR, Fleet, Judged, Silence, Standing, Steps
from forebay_registry.discovery.facts import engines_in
from forebay_registry.discovery.offers import EngineFacts, Offer, Policy, Site, offers_of
from forebay_registry.fleet.fleet import View
from forebay_registry.wanted.catalog import AddBackend, demand_name, normal_url, parse_add

log = logging.getLogger(__name__)

_ROUND_S = 2.0
_PAUSE_S = 0.2
"""Between two rounds, however much news there is."""
_LOOKED_S = 120.0
"""An agent that has not looked for so long, or said nothing for so long, knows nothing."""
_MOST_ADDRESSES = 8


class Wanted(Protocol):
    """What the roster does."""

    def kept(self) -> Kept: ...
    async def add_backend(self, order: AddBackend) -> tuple[View, bool]: ...
    async def remove_backend(self, name: str, actor: str, *, only: Desired | None = None) -> View: ...


class Remembers(Protocol):
    async def sites(self) -> dict[NodeId, Site]: ...
    async def remembered(self) -> dict[str, str]: ...
    async def put_site(self, node_id: NodeId, site: Site) -> None: ...
    async def note_joined(self, node_id: NodeId, joined_from: str) -> None: ...
    async def remember(self, added: Mapping[str, str], now: float) -> None: ...
    async def forget(self, urls: list[str]) -> None: ...


class Cluster(Protocol):
    """What Kubernetes names."""

    @property
    def offers(self) -> tuple[Offer, ...]: ...
    @property
    def is_known(self) -> bool:
        """Everything that there is was heard, and is heard of."""
        ...


@dataclass(slots=True)
class _Heard:
    engines: tuple[EngineFacts, ...]
    looked_at: float
    """By our clock."""
    offers: tuple[Site, tuple[Offer, ...]] | None = None
    """What was made of them at that site."""


class Discovery:
    def __init__(
        self,
        wanted: Wanted,
        store: Remembers,
        clock: Clock,
        *,
        usual: Policy,
        forget_s: Mapping[str, float],
        cluster: Cluster | None = None,
    ) -> None:
        """`usual`: of nodes that nobody said anything of. `forget_s`: who finds → how long what is gone stays a backend."""
        self._wanted = wanted
        self._store = store
        self._clock = clock
        self._usual = usual
        self._forget_s = forget_s
        self._cluster = cluster
        self._heard: dict[NodeId, _Heard] = {}
        self._sites: dict[NodeId, Site] | None = None
        self._changing_sites = asyncio.Lock()
        self._remembered: dict[str, str] = {}
        self._silence = Silence({})
        self._news = asyncio.Event()
        self._refused: dict[str, str] = {}
        """Address → why it did not become a backend, as it was last logged."""

    def hear(self, node_id: NodeId, sample: TelemetrySample, heard_at: float) -> None:
        """Each sample as it comes."""
        if sample.HasField("engines_age_s") and (engines := engines_in(sample)) is not None:
            before, looked_at = self._heard.get(node_id), heard_at - sample.engines_age_s
            if before is not None and before.engines == engines:
                before.looked_at = looked_at
            else:
                self._heard[node_id] = _Heard(engines, looked_at)
                self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        self._sites = None
        while True:
            try:
                await self._round()
            except ForebayError as error:  # Postgres is away, or somebody changed the fleet at the same moment
                log.debug("discovery waits", extra={"action": "discovery_waits", "why": error.message})
            except Exception:
                # Engines that are found are an offer; whatever they are like, the fleet must not stand still for them.
                log.exception("discovery failed", extra={"action": "internal"})
            await asyncio.sleep(_PAUSE_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(_ROUND_S):
                    await self._news.wait()
            self._news.clear()

    # --- for operators ---

    async def judged(self) -> tuple[Judged, ...]:
        """By name. Raises Unavailable."""
        await self._load()
        return decide.judge(self._offers(), self._fleet())

    def gone(self) -> tuple[tuple[Desired, float], ...]:
        """Backends that were added by themselves and that nobody finds any more, each with since when."""
        since = self._silence.since
        return tuple((b, since[b.id]) for b in self._wanted.kept().backends if b.id in since)

    async def sites(self) -> tuple[Site, ...]:
        """By name."""
        return tuple(sorted((await self._load()).values(), key=lambda site: site.node))

    async def adopt(self, name: str, *, as_name: str, pool: str, slots: int, actor: str) -> tuple[View, bool]:
        """What was found under that name is a backend by an operator's word from now on; and whether it is new as one.

        Raises NotFound, NotPossible, and what adding a backend raises."""
        one = next((j for j in await self.judged() if name in (j.offer.name, j.backend)), None)
        if one is None:
            raise NotFound(f"Nothing was found under the name {name!r}; see: forebay backend found")
        if one.standing is Standing.NOT_POSSIBLE:
            raise NotPossible(f"{name} cannot be a backend as it is. {one.offer.why_not}")
        if one.standing is Standing.DECLARED:
            raise NotPossible(f"{name} is the backend {one.backend} already, by an operator's word.")
        if as_name and one.backend and as_name != one.backend:
            raise NotPossible(f"{name} is the backend {one.backend} already, and a backend keeps its name.")
        chosen = one.backend or as_name or decide.free_name(one.offer, self._wanted.kept().backends)
        asked = replace(one.offer, name=chosen, pool=pool or one.offer.pool, slots=slots or one.offer.slots)
        view, _ = await self._wanted.add_backend(_order(asked, actor=actor, found_by="", may_change=bool(one.backend)))
        await self._forget([one.offer.url, *one.offer.also_at])
        return view, not one.backend

    async def set_site(
        self, node: str, *, policy: Policy | None, clear_policy: bool, pool: str | None, addresses: list[str] | None
    ) -> tuple[Site, Site]:
        """How it was and how it is. None: as it was. Raises NotFound, BadInput, Unavailable."""
        async with self._changing_sites:
            return await self._set_site(node, policy, clear_policy, pool, addresses)

    async def _set_site(
        self, node: str, policy: Policy | None, clear_policy: bool, pool: str | None, addresses: list[str] | None
    ) -> tuple[Site, Site]:
        sites = await self._known_sites()
        node_id, before = next(((i, s) for i, s in sites.items() if s.node == node), (None, None))
        if node_id is None or before is None:
            raise NotFound(f"There is no node {node!r}.")
        if pool:
            demand_name(pool, "a pool")
        after = replace(
            before,
            policy=None if clear_policy else policy or before.policy,
            pool=before.pool if pool is None else pool,
            addresses=before.addresses if addresses is None else _demand_hosts(addresses),
        )
        if after != before:
            try:
                await self._store.put_site(node_id, after)
            finally:
                self._sites = None  # read again, since it may be written though the answer was lost
            self._news.set()
        return before, after

    async def note_joined(self, node_id: NodeId, joined_from: str) -> None:
        """Where a node enrolled from. Raises Unavailable."""
        if joined_from:
            async with self._changing_sites:
                try:
                    await self._store.note_joined(node_id, joined_from)
                finally:
                    self._sites = None

    # --- inside ---

    async def _round(self) -> None:
        await self._load()
        fleet, now = self._fleet(), self._clock.now()
        judged = decide.judge(self._offers(), fleet)
        heard = [node_id for node_id, h in self._heard.items() if now - h.looked_at < _LOOKED_S]
        known = self._cluster is not None and self._cluster.is_known
        self._silence = decide.still(judged, fleet, self._silence, now, heard_nodes=heard, cluster_known=known)
        steps = decide.plan(judged, fleet, self._silence, now, self._forget_s)
        if steps:
            await self._take(steps)

    async def _take(self, steps: Steps) -> None:
        """One refused leaves the others alone. Raises Unavailable."""
        if steps.remember:
            await self._remember(dict(steps.remember))
        for offer in steps.add:
            if await self._want(offer, may_change=False):
                await self._remember({offer.url: offer.found_by})
        for held, offer in steps.change:
            if await self._want(offer, may_change=True) and held.url != offer.url:
                await self._forget([held.url])
                await self._remember({offer.url: offer.found_by})
        for gone in steps.remove:
            # In this order: what is remembered and is no backend was turned away.
            await self._forget([gone.url])
            try:
                await self._wanted.remove_backend(gone.name, ACTOR, only=gone)
            except NotFound:
                continue
            log.info("found engine is gone for long", extra={"action": "discovery_removed", "backend": gone.name})

    async def _want(self, offer: Offer, *, may_change: bool) -> bool:
        """Whether it is a backend now. Raises Unavailable."""
        try:
            await self._wanted.add_backend(_order(offer, actor=ACTOR, found_by=offer.found_by, may_change=may_change))
        except Unavailable:
            raise
        except ForebayError as error:
            if self._refused.get(offer.url) != error.message:
                fields = {"action": "discovery_refused", "url": offer.url, "why": error.message}
                log.warning("found engine not added", extra=fields)
            self._refused[offer.url] = error.message
            return False
        self._refused.pop(offer.url, None)
        return True

    async def _remember(self, added: Mapping[str, str]) -> None:
        await self._store.remember(added, self._clock.now())
        self._remembered.update(added)

    async def _forget(self, urls: list[str]) -> None:
        await self._store.forget(urls)
        for url in urls:
            self._remembered.pop(url, None)

    async def _load(self) -> dict[NodeId, Site]:
        async with self._changing_sites:
            return await self._known_sites()

    async def _known_sites(self) -> dict[NodeId, Site]:
        """Under the lock: what is read must not be older than what was changed meanwhile."""
        if self._sites is None or self._sites.keys() != {n.id for n in self._wanted.kept().nodes}:
            sites, self._remembered = await self._store.sites(), await self._store.remembered()
            self._sites = sites
        return self._sites

    def _fleet(self) -> Fleet:
        kept = self._wanted.kept()
        return Fleet(kept.backends, {n.name: n.id for n in kept.nodes}, self._remembered)

    def _offers(self) -> list[Offer]:
        sites = self._sites or {}
        found: list[Offer] = []
        for node_id, heard in self._heard.items():
            site = sites.get(node_id)
            if site is None:
                continue
            if heard.offers is None or heard.offers[0] != site:
                heard.offers = site, offers_of(site, heard.engines, self._usual)
            found += heard.offers[1]
        return [*found, *(self._cluster.offers if self._cluster is not None else ())]


def _order(offer: Offer, *, actor: str, found_by: str, may_change: bool) -> AddBackend:
    """Raises BadInput."""
    order = parse_add(
        actor=actor,
        name=offer.name,
        url=offer.url,
        kind=offer.kind,
        pool=offer.pool,
        slots=offer.slots,
        node=offer.node,
        replace=may_change,
        model_names=dict(offer.model_names),
    )
    return replace(order, gpu_indices=offer.gpu_indices, found_by=str(found_by))


def _demand_hosts(hosts: list[str]) -> tuple[str, ...]:
    """Raises BadInput."""
    if len(hosts) > _MOST_ADDRESSES:
        raise BadInput(f"A node has at most {_MOST_ADDRESSES} addresses here.")
    for host in hosts:
        shown = f"[{host}]" if ":" in host else host
        if not host or "/" in host or "@" in host or any(c.isspace() for c in host):
            raise BadInput(f"{host!r} is not an address or a host name; leave scheme and port out.")
        if (why := refusal(normal_url(f"http://{shown}:1"))) is not None:
            raise BadInput(f"{why}.")
    return tuple(dict.fromkeys(host.lower() for host in hosts))
