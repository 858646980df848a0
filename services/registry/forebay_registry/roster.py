"""The registry's memory: what is wanted and what is seen, joined. Every change of either passes here, and goes from here to
the store, to the patrol and to the watchers.

What an operator may do is decided in `catalog`; loading and saving are the part of `keeping`."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Collection, Mapping
from typing import Protocol

from forebay.clock import Clock
from forebay.errors import Unavailable
from forebay_registry.backend import BackendId, Desired, Kept, Node, NodeId, Observed, Seen
from forebay_registry.engines.probe import Target
from forebay_registry.fleet.fleet import Fleet, View, view_of
from forebay_registry.fleet.watch import Watchers
from forebay_registry.health.patrol import Patrol
from forebay_registry.wanted import catalog
from forebay_registry.wanted.catalog import AddBackend

log = logging.getLogger(__name__)

_PATIENCE_S = 2.0
"""How long a change waits for the first word from Postgres: right after a start it comes within a moment."""


class Keeps(Protocol):
    """What is stored before it is so."""

    async def put_backend(self, wanted: Desired) -> None: ...
    async def remove_backend(self, backend_id: BackendId) -> None: ...
    async def add_node(self, node: Node) -> None: ...


class Roster:
    def __init__(
        self,
        *,
        fleet: Fleet,
        watchers: Watchers,
        patrol: Patrol,
        store: Keeps,
        clock: Clock,
    ) -> None:
        self._fleet = fleet
        self._watchers = watchers
        self._patrol = patrol
        self._store = store
        self._clock = clock
        self._wanted: dict[BackendId, Desired] = {}
        self._nodes: dict[NodeId, Node] = {}
        self._observed: dict[BackendId, Observed] = {}
        self._bearers: dict[BackendId, tuple[str, ...]] = {}
        self._unlooked: set[BackendId] = set()
        self.looked_at_all = asyncio.Event()
        """Every backend of the wanted fleet has been looked at once."""
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
        """Name → id of the enrolled nodes."""

    # --- what is wanted ---

    def adopt(self, kept: Kept) -> None:
        """This is the wanted fleet now, whatever it was before."""
        for gone in self._wanted.keys() - {b.id for b in kept.backends}:
            self._drop(gone)
        for wanted in kept.backends:
            self._place(wanted, kept.seen.get(wanted.id, Seen()))
        self._nodes = {node.id: node for node in kept.nodes}
        self.node_ids = {node.name: node.id for node in kept.nodes}
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
        )

    async def add_backend(self, order: AddBackend) -> tuple[View, bool]:
        """The backend as it is now, and whether it is new. Raises AlreadyExists, NotFound, Unavailable."""
        await self._demand_store()
        async with self.writing:
            new_id = BackendId(f"be-{secrets.token_hex(8)}")
            added = catalog.add(order, self._wanted, self._nodes, new_id=new_id, now=self._clock.now())
            if added.changed:
                await self._store.put_backend(added.backend)
                self._place(added.backend, Seen())
                self._say("backend added" if added.created else "backend changed", added.backend, order.actor)
            view = self._fleet.get(added.backend.id)
            assert view is not None
            return view, added.created

    async def remove_backend(self, name: str, actor: str) -> View:
        """As it was. Raises NotFound, Unavailable."""
        await self._demand_store()
        async with self.writing:
            gone = catalog.remove(name, self._wanted)
            view = self._fleet.get(gone.id)
            assert view is not None
            await self._store.remove_backend(gone.id)
            self._drop(gone.id)
            self._say("backend removed", gone, actor)
            return view

    async def name_models(self, name: str, put: Mapping[str, str], removed: Collection[str], actor: str) -> View:
        """The backend as it is now. Raises NotFound, BadInput, Unavailable."""
        await self._demand_store()
        async with self.writing:
            wanted = catalog.name_models(name, put, removed, self._wanted, actor=actor, now=self._clock.now())
            await self._store.put_backend(wanted)
            self._place(wanted, Seen())
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
                await self._store.add_node(node)
                self._nodes[node.id] = node
                self.node_ids[node.name] = node.id
                self.changed.set()
                log.info("node enrolled", extra={"action": "enrol_node", "node": node.name, "actor": actor})
            return node

    # --- what is seen ---

    def observe(self, backend_id: BackendId, observed: Observed) -> None:
        """One look later."""
        wanted = self._wanted.get(backend_id)
        if wanted is None:
            return
        if observed.seen != self._observed[backend_id].seen:
            self.unsaved[backend_id] = wanted.url, observed.seen
            self.changed.set()
        self._observed[backend_id] = observed
        self._publish(backend_id)
        self._note_looked(backend_id)

    def take_credentials(self, bearers: Mapping[BackendId, tuple[str, ...]]) -> None:
        """All that admin holds, whether the backend is known here yet or not."""
        self._bearers = {backend_id: held for backend_id, held in bearers.items() if held}
        for backend_id in self._wanted:
            self._publish(backend_id)
            self._watch(backend_id)

    # --- reading ---

    def views(self) -> tuple[View, ...]:
        """By name. Raises Unavailable while the wanted fleet is not known."""
        self._demand_known()
        return self._fleet.views()

    def nodes(self) -> tuple[Node, ...]:
        """By name. Raises Unavailable while they are not known."""
        self._demand_known()
        return tuple(sorted(self._nodes.values(), key=lambda node: node.name))

    # --- inside ---

    def _place(self, wanted: Desired, seen: Seen) -> None:
        before = self._wanted.get(wanted.id)
        if before is None or before.url != wanted.url:
            self._observed[wanted.id] = Observed(seen=seen)
            self._unlooked.add(wanted.id)
            self.looked_at_all.clear()
        self._wanted[wanted.id] = wanted
        self._publish(wanted.id)
        self._watch(wanted.id)
        self.changed.set()

    def _drop(self, backend_id: BackendId) -> None:
        self._patrol.forget(backend_id)
        del self._wanted[backend_id], self._observed[backend_id]
        self.unsaved.pop(backend_id, None)
        self._note_looked(backend_id)
        if self._fleet.remove(backend_id):
            self._watchers.notify()
        self.changed.set()

    def _publish(self, backend_id: BackendId) -> None:
        view = view_of(self._wanted[backend_id], self._observed[backend_id], has_credential=backend_id in self._bearers)
        if self._fleet.put(view):
            self._watchers.notify()

    def _watch(self, backend_id: BackendId) -> None:
        wanted = self._wanted[backend_id]
        bearer, *others = self._bearers.get(backend_id, (None,))
        target = Target(wanted.url, wanted.kind, bearer, tuple(others))
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
