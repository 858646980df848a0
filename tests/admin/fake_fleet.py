"""The registry's methods about the fleet as a whole, in memory: decided by its own code, so that admin meets no kinder
one."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import replace
from typing import Any

from forebay.errors import ForebayError, NotFound
from forebay.wire.v1 import fleet_pb2 as wire
from forebay.wire.v1 import registry_pb2
from forebay_registry.backend import BackendId, Desired, NodeId
from forebay_registry.wanted.plan import plan
from forebay_registry.wanted.state import Outdated, Version, Wanted, document, edit_between
from forebay_registry.wanted.wire import from_spec, to_changes, to_problems, to_spec, to_version


class FakeFleet:
    def __init__(self, known: dict[str, registry_pb2.Backend]) -> None:
        """`known`: the backends that the other methods tell; kept in step."""
        self._known = known
        self._state = Wanted(0, {}, {}, {}, {})
        self._versions: list[Version] = []
        self._past: dict[int, Wanted] = {0: self._state}
        self._numbers = itertools.count(1)
        self.refuse: type[ForebayError] | None = None
        """What a change is refused with, though its plan was good."""
        self.declared: list[str] = []
        """Paths of what the configuration file says."""
        self.answers = asyncio.Event()
        """A change that was made is told when this is set."""
        self.answers.set()

    async def ChangeFleet(self, request: wire.ChangeFleetRequest, context: Any) -> wire.ChangeFleetResponse:
        if request.HasField("base_version") and request.base_version != self._state.version:
            raise Outdated
        order, misread = from_spec(request.wanted)
        planned = plan(
            order,
            self._state,
            prune=request.prune,
            actor=request.actor,
            now=1.0,
            new_id=lambda prefix: f"{prefix}{next(self._numbers)}",
            allow_link_local=False,
        )
        problems = [*misread, *planned.problems]
        if problems:
            return wire.ChangeFleetResponse(version=self._state.version, problems=to_problems(problems))
        edit = edit_between(self._state, planned.after, actor=request.actor, at=1.0)
        changes = to_changes(edit.changes) if edit is not None else []
        if edit is not None and not request.dry_run:
            if self.refuse is not None:
                raise self.refuse
            self._state = replace(planned.after, version=edit.version)
            self._past[edit.version] = self._state
            self._versions.append(Version(edit.version, time.time(), request.actor, edit.changes))
            self._tell()
            await self.answers.wait()
        return wire.ChangeFleetResponse(version=self._state.version, changes=changes, notes=planned.notes)

    async def ReadFleet(self, request: wire.ReadFleetRequest, context: Any) -> wire.ReadFleetResponse:
        version = request.version if request.HasField("version") else self._state.version
        if version not in self._past:
            raise NotFound(f"There is no version {version} of the fleet.")
        state = self._past[version] if version != self._state.version else self._state
        return wire.ReadFleetResponse(fleet=to_spec(document(state)), version=version, declared=self.declared)

    async def ListFleetVersions(
        self, request: wire.ListFleetVersionsRequest, context: Any
    ) -> wire.ListFleetVersionsResponse:
        newest_first = [v for v in reversed(self._versions) if v.number < (request.before_version or 2**63)]
        return wire.ListFleetVersionsResponse(versions=[to_version(v) for v in newest_first[: request.limit or 50]])

    def want(self, backend: registry_pb2.Backend) -> None:
        """One that was added by itself is wanted like the others, though that makes no version here."""
        wanted = Desired(
            BackendId(backend.id),
            backend.name,
            backend.url,
            None,
            backend.pool,
            backend.slots,
            NodeId(backend.node_id) if backend.node_id else None,
            "test",
            1.0,
            gpu_indices=tuple(backend.gpu_indices),
        )
        self._state = replace(self._state, backends={**self._state.backends, wanted.id: wanted})

    def want_no_more(self, backend: registry_pb2.Backend) -> None:
        left = {id_: held for id_, held in self._state.backends.items() if id_ != backend.id}
        self._state = replace(self._state, backends=left)

    def node_id(self, name: str) -> str:
        return next((node.id for node in self._state.nodes.values() if node.name == name), "")

    def described(self) -> list[registry_pb2.Node]:
        """Nodes that somebody has described, as if none had an agent."""
        return [
            registry_pb2.Node(id=node.id, name=node.name, labels=dict(node.labels), without_agent=True)
            for node in self._state.nodes.values()
        ]

    def _tell(self) -> None:
        before = dict(self._known)
        self._known.clear()
        for backend in self._state.backends.values():
            was = before.get(backend.name, registry_pb2.Backend())
            self._known[backend.name] = registry_pb2.Backend(
                id=backend.id,
                name=backend.name,
                url=backend.url,
                kind=was.kind,
                pool=backend.pool,
                node_id=backend.node_id or "",
                slots=backend.slots or 4,
                enabled=backend.enabled,
                health=registry_pb2.BACKEND_HEALTH_HEALTHY,
                models=was.models,
                labels=dict(backend.labels),
                gpu_indices=backend.gpu_indices,
            )
