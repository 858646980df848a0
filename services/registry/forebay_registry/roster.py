"""The registry's memory: what is wanted and what is seen, joined. Every change of either passes here, and goes from here to
the store, to the patrol and to the watchers.

What an operator may do is decided in `catalog`; loading and saving are the part of `keeping`."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Protocol

from forebay.clock import Clock
from forebay.engine_addresses import refusal
from forebay.errors import BadInput, Unavailable
from forebay_registry.backend import BackendId, Desired, Kept, ModelFacts, Node, NodeId, Observed, Pool, Seen
from forebay_registry.engines.probe import Target
from forebay_registry.fleet.fleet import Fleet, View, view_of
from forebay_registry.fleet.watch import Watchers
from forebay_registry.health.lifecycle import Lifecycle
from forebay_registry.health.patrol import Patrol
from forebay_registry.wanted import catalog
from forebay_registry.wanted.catalog import AddBackend
from forebay_registry.wanted.plan import FleetAnswer, plan
from forebay_registry.wanted.specs import FleetOrder
from forebay_registry.wanted.state import Edit, Outdated, Wanted, edit_between

log = logging.getLogger(__name__)

_PATIENCE_S = 3.0
"""How long a change waits for the first word from Postgres: right after a start it comes within a moment."""


class Keeps(Protocol):
    """What is stored before it is so."""

    async def write(self, edit: Edit) -> None: ...
    async def load(self) -> Kept: ...


class Roster:
    def __init__(
        self,
        *,
        fleet: Fleet,
        watchers: Watchers,
        patrol: Patrol,
        store: Keeps,
        clock: Clock,
        allow_link_local: bool = False,
        lifecycle: Lifecycle | None = None,
    ) -> None:
        self._lifecycle = lifecycle or Lifecycle(clock)
        self._lifecycle.on_news = self.review
        self._fleet = fleet
        self._watchers = watchers
        self._patrol = patrol
        self._store = store
        self._clock = clock
        self._allow_link_local = allow_link_local
        self._wanted: dict[BackendId, Desired] = {}
        self._nodes: dict[NodeId, Node] = {}
        self._pools: dict[str, Pool] = {}
        self._models: dict[str, ModelFacts] = {}
        self._version = 0
        self._observed: dict[BackendId, Observed] = {}
        self._bearers: dict[BackendId, tuple[str, ...]] = {}
        self._unlooked: set[BackendId] = set()
        self.looked_at_all = asyncio.Event()
        """Every backend of the wanted fleet has been looked at once, here or before this start."""
        self.writing = asyncio.Lock()
        """Held while a change is decided, stored and made; and while the whole is read anew."""
        self.known = asyncio.Event()
        """The wanted fleet is known, from Postgres or a snapshot."""
        self.stored = asyncio.Event()
        """Postgres has been reached and has the tables: changes can be made."""
        self.unsaved: dict[BackendId, tuple[str, Seen]] = {}
        """Backend → (its address, what it said) where that is news for the store."""
        self.changed = asyncio.Event()
        """Something is worth saving."""
        self.node_ids: dict[str, NodeId] = {}
        """Name → id of the nodes."""
        self.agents: dict[str, NodeId] = {}
        """The same of those that an agent has joined as."""
        self.on_look: list[Callable[[View], None]] = []
        """Whoever wants each backend right after it was looked at. Must neither raise nor wait."""

    # --- what is wanted ---

    def adopt(self, kept: Kept, *, anew: bool = False) -> None:
        """This is the wanted fleet now, whatever it was before. `anew`: and what is seen is as it says, too."""
        for gone in self._wanted.keys() - {b.id for b in kept.backends}:
            self._drop(gone)
        self._version = kept.version
        is_described_otherwise = (tuple(self._pools.values()), tuple(self._models.values())) != (
            kept.pools,
            kept.models,
        )
        self._pools = {pool.name: pool for pool in kept.pools}
        self._models = {model.name: model for model in kept.models}
        self._fleet.put_pools(kept.pools)
        for wanted in kept.backends:
            if anew or is_described_otherwise or self._wanted.get(wanted.id) != wanted:
                self._place(wanted, kept.seen.get(wanted.id, Seen()), anew=anew)
        self._nodes = {node.id: node for node in kept.nodes}
        self.node_ids = {node.name: node.id for node in kept.nodes}
        self.agents = {node.name: node.id for node in kept.nodes if node.has_agent}
        self.known.set()
        self._note_looked(None)
        self._watchers.notify()
        self.changed.set()

    def kept(self) -> Kept:
        """What is worth keeping, for a snapshot."""
        return Kept(
            tuple(self._wanted.values()),
            tuple(self._nodes.values()),
            {backend_id: observed.seen for backend_id, observed in self._observed.items()},
            tuple(self._pools.values()),
            tuple(self._models.values()),
            self._version,
        )

    def wanted(self) -> Wanted:
        """As of now: the memory's own, not to be changed."""
        return Wanted(self._version, self._wanted, self._nodes, self._pools, self._models)

    async def change_fleet(
        self, order: FleetOrder, *, actor: str, prune: bool, dry_run: bool, base_version: int | None = None
    ) -> FleetAnswer:
        """All of it or nothing. Raises Outdated when the desired state is not at `base_version`, and Unavailable."""
        await self._demand_store()
        async with self.writing:
            before, now = self.wanted(), self._clock.now()
            if base_version is not None and base_version != before.version:
                raise Outdated(
                    f"The fleet is at version {before.version} by now, and this was planned for {base_version}: "
                    "somebody else changed it. Look at the difference again."
                )
            planned = plan(
                order,
                before,
                prune=prune,
                actor=actor,
                now=now,
                new_id=lambda prefix: prefix + secrets.token_hex(8),
                allow_link_local=self._allow_link_local,
            )
            if planned.problems:
                return FleetAnswer(before.version, problems=planned.problems)
            edit = edit_between(before, planned.after, actor=actor, at=now)
            if edit is None or dry_run:
                changes = edit.changes if edit is not None else ()
                return FleetAnswer(before.version, changes, notes=planned.notes)
            await self._write(edit)
            fields = {"action": "change_fleet", "actor": actor, "version": edit.version, "changes": len(edit.changes)}
            log.info("fleet changed", extra=fields)
            return FleetAnswer(edit.version, edit.changes, notes=planned.notes)

    async def add_backend(self, order: AddBackend) -> tuple[View, bool]:
        """The backend as it is now, and whether it is new. Raises AlreadyExists, NotFound, Unavailable."""
        await self._demand_store()
        async with self.writing:
            new_id = BackendId(f"be-{secrets.token_hex(8)}")
            if not self._allow_link_local and (why := refusal(order.url)) is not None:
                raise BadInput(f"{why}.")
            added = catalog.add(order, self._wanted, self._nodes, new_id=new_id, now=self._clock.now())
            if added.changed:
                await self._want(added.backend, order.actor)
                self._say("backend added" if added.created else "backend changed", added.backend, order.actor)
            view = self._fleet.get(added.backend.id)
            assert view is not None
            return view, added.created

    async def remove_backend(self, name: str, actor: str, *, only: Desired | None = None) -> View:
        """As it was. `only`: as it must still be. Raises NotFound, Unavailable."""
        await self._demand_store()
        async with self.writing:
            gone = catalog.remove(name, self._wanted, only=only)
            view = self._fleet.get(gone.id)
            assert view is not None
            rest = {backend_id: kept for backend_id, kept in self._wanted.items() if backend_id != gone.id}
            await self._make(replace(self.wanted(), backends=rest), actor)
            self._say("backend removed", gone, actor)
            return view

    async def name_models(self, name: str, put: Mapping[str, str], removed: Collection[str], actor: str) -> View:
        """The backend as it is now. Raises NotFound, BadInput, Unavailable."""
        await self._demand_store()
        async with self.writing:
            wanted = catalog.name_models(name, put, removed, self._wanted, actor=actor, now=self._clock.now())
            await self._want(wanted, actor)
            self._say("backend changed", wanted, actor)
            view = self._fleet.get(wanted.id)
            assert view is not None
            return view

    async def enrol_node(self, name: str, actor: str) -> Node:
        """The node of that name, new or not. Raises BadInput, Unavailable."""
        await self._demand_store()
        async with self.writing:
            new_id = NodeId(f"no-{secrets.token_hex(8)}")
            node, is_new = catalog.enrol(name, self._nodes, actor=actor, new_id=new_id, now=self._clock.now())
            if is_new:
                await self._make(replace(self.wanted(), nodes={**self._nodes, node.id: node}), actor)
                log.info("node enrolled", extra={"action": "enrol_node", "node": node.name, "actor": actor})
            return node

    # --- what is seen ---

    def observe(self, backend_id: BackendId, observed: Observed) -> None:
        """One look later."""
        wanted = self._wanted.get(backend_id)
        if wanted is None:
            return
        if observed.seen.lasting != self._observed[backend_id].seen.lasting:
            self.unsaved[backend_id] = wanted.url, observed.seen
            self.changed.set()
        self._observed[backend_id] = observed
        self._publish(backend_id)
        self._note_looked(backend_id)
        if (view := self._fleet.get(backend_id)) is not None:
            for listener in self.on_look:
                listener(view)

    def take_credentials(self, bearers: Mapping[BackendId, tuple[str, ...]]) -> None:
        """All that admin holds, whether the backend is known here yet or not."""
        self._bearers = {backend_id: held for backend_id, held in bearers.items() if held}
        for backend_id in self._wanted:
            self._publish(backend_id)
            self._watch(backend_id)

    def review(self, backend_ids: Iterable[BackendId]) -> None:
        """Something other than a look may have changed how these are."""
        for backend_id in backend_ids:
            if backend_id in self._wanted:
                self._publish(backend_id)

    # --- reading ---

    @property
    def version(self) -> int:
        """Of the desired state."""
        return self._version

    def views(self) -> tuple[View, ...]:
        """By name. Raises Unavailable while the wanted fleet is not known."""
        self._demand_known()
        return self._fleet.views()

    def pools(self) -> tuple[Pool, ...]:
        """Those that operators have described, by name. Raises Unavailable while they are not known."""
        self._demand_known()
        return tuple(sorted(self._pools.values(), key=lambda pool: pool.name))

    def model_facts(self) -> Mapping[str, ModelFacts]:
        """What operators say of models, by name."""
        return self._models

    def nodes(self) -> tuple[Node, ...]:
        """By name. Raises Unavailable while they are not known."""
        self._demand_known()
        return tuple(sorted(self._nodes.values(), key=lambda node: node.name))

    def wanted_of(self, backend_id: BackendId) -> Desired:
        """One of those in `views`."""
        return self._wanted[backend_id]

    async def demand_store(self) -> None:
        """Changes can be made. Raises Unavailable."""
        await self._demand_store()

    def address_of(self, backend_id: BackendId) -> Target | None:
        """Where it is, and with which credentials; None when it is gone. For the registry's own calls alone."""
        wanted = self._wanted.get(backend_id)
        if wanted is None:
            return None
        bearer, *others = self._bearers.get(backend_id, (None,))
        return Target(wanted.url, wanted.kind, bearer, tuple(others))

    def look_now(self, backend_id: BackendId) -> None:
        """Something was done there that the next look shows."""
        self._patrol.look_now(backend_id)

    # --- inside ---

    async def _want(self, backend: Desired, actor: str) -> None:
        await self._make(replace(self.wanted(), backends={**self._wanted, backend.id: backend}), actor)

    async def _make(self, after: Wanted, actor: str) -> None:
        edit = edit_between(self.wanted(), after, actor=actor, at=self._clock.now())
        if edit is not None:
            await self._write(edit)

    async def _write(self, edit: Edit) -> None:
        """Stores it, and makes it so. Raises Outdated, AlreadyExists, Unavailable."""
        try:
            await self._store.write(edit)
        except Outdated:
            self.adopt(await self._store.load())
            raise
        self._version = edit.version
        for pool in edit.gone_pools:
            del self._pools[pool]
        for model in edit.gone_models:
            del self._models[model]
        self._pools.update({pool.name: pool for pool in edit.pools})
        self._models.update({model.name: model for model in edit.models})
        for gone in edit.gone_backends:
            self._drop(gone)
        for node_id in edit.gone_nodes:
            gone_node = self._nodes.pop(node_id)
            self.node_ids.pop(gone_node.name, None)
            self.agents.pop(gone_node.name, None)
        for node in edit.nodes:
            self._nodes[node.id] = node
            self.node_ids[node.name] = node.id
            if node.has_agent:
                self.agents[node.name] = node.id
        for backend in edit.backends:
            self._place(backend, Seen())
        if self._fleet.put_pools(self._pools.values()) or edit.models or edit.gone_models:
            for backend_id in self._wanted:
                self._publish(backend_id)
            self._watchers.notify()
        self.changed.set()

    def _place(self, wanted: Desired, seen: Seen, *, anew: bool = False) -> None:
        before = self._wanted.get(wanted.id)
        if anew:
            self._patrol.forget(wanted.id)
        if before is not None and before.url != wanted.url:
            self._lifecycle.begin_anew(wanted.id)
        if anew or before is None or before.url != wanted.url:
            self._observed[wanted.id] = Observed(seen=seen)
            # How one is that was known before this start is told until it is looked at.
            if self._lifecycle.recall(wanted.id, self._clock.monotonic()) is None:
                self._unlooked.add(wanted.id)
                self.looked_at_all.clear()
        self._wanted[wanted.id] = wanted
        self._publish(wanted.id)
        self._watch(wanted.id)
        self.changed.set()

    def _drop(self, backend_id: BackendId) -> None:
        self._patrol.forget(backend_id)
        self._lifecycle.forget(backend_id)
        del self._wanted[backend_id], self._observed[backend_id]
        self.unsaved.pop(backend_id, None)
        self._note_looked(backend_id)
        if self._fleet.remove(backend_id):
            self._watchers.notify()
        self.changed.set()

    def _publish(self, backend_id: BackendId) -> None:
        wanted = self._wanted[backend_id]
        pool = self._pools.get(wanted.pool)
        view = view_of(
            wanted,
            self._observed[backend_id],
            has_credential=backend_id in self._bearers,
            verdict=self._lifecycle.verdict(wanted, self._observed[backend_id]),
            required=pool.required_models if pool is not None else (),
            facts=self._models,
        )
        if self._fleet.put(view):
            self._watchers.notify()

    def _watch(self, backend_id: BackendId) -> None:
        target = self.address_of(backend_id)
        assert target is not None
        self._patrol.watch(backend_id, target, self._observed[backend_id].seen, self.observe)

    def _note_looked(self, backend_id: BackendId | None) -> None:
        if backend_id is not None:
            self._unlooked.discard(backend_id)
        if self.known.is_set() and not self._unlooked:
            self.looked_at_all.set()

    def _demand_known(self) -> None:
        if not self.known.is_set():
            raise Unavailable("The registry does not know the fleet yet: it waits for Postgres.", retry_after_s=1.0)

    async def _demand_store(self) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self.stored.wait()
        except TimeoutError:
            self._demand_known()
            raise Unavailable(
                "The registry started without Postgres, from its last snapshot; changes wait for Postgres.",
                retry_after_s=2.0,
            ) from None

    def _say(self, event: str, backend: Desired, actor: str) -> None:
        fields = {"action": event.replace(" ", "_"), "backend": backend.name, "url": backend.url, "actor": actor}
        log.info(event, extra=fields)
