"""Operators' calls about one backend, node or pool of the wanted fleet. What is to be is decided in `parts`; it is made so
as a fleet file with that entry alone would, so that it is versioned, audited and refused as that is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from forebay.errors import BadInput, NotFound, NotPossible
from forebay.plain_message import plain_of, read_message
from forebay.wire.v1 import fleet_parts_pb2 as wire
from forebay.wire.v1 import fleet_pb2
from forebay_admin.fleet.parts import PLACING, Entry, backend_patched, changed, no_such, patched, pool_patched
from forebay_admin.fleet.state_desk import FleetStateDesk
from forebay_admin.people.access import Actor

_MOST_TRIES = 5
"""While others change the fleet as well."""
_OF_THE_ORDER = ("name", "reset", "base_version")
"""Fields of a request that are none of an entry."""
_NEVER_USUAL = ("url", *_OF_THE_ORDER)


@dataclass(frozen=True, slots=True)
class _Kind:
    word: str
    section: str
    """Of a fleet."""
    patch: Callable[[Entry, Entry, Sequence[str], Collection[str]], dict[str, Any]]
    may_be_new: bool = False
    kept_here: Collection[str] = ()
    """Fields that are no matter of the registry's, nor of its configuration file."""


_BACKEND = _Kind("backend", "backends", backend_patched)
_NODE = _Kind("node", "nodes", patched)
# One that nobody described is there while backends are in it.
_POOL = _Kind("pool", "pools", pool_patched, may_be_new=True, kept_here=PLACING)


@dataclass(frozen=True, slots=True)
class _Done:
    entry: Entry
    version: int
    changes: Sequence[fleet_pb2.FleetChange]


class FleetPartsDesk:
    """Each call raises BadInput, NotFound, NotPossible (also for what a configuration file says) or Unavailable."""

    def __init__(self, state: FleetStateDesk) -> None:
        self._state = state
        self._turn = asyncio.Lock()
        """Changes that are made here do not get in each other's way; those of other replicas may."""

    async def change_backend(self, request: wire.ChangeBackendRequest, actor: Actor) -> wire.ChangeBackendResponse:
        done = await self._change(_BACKEND, request, actor)
        spec, _ = read_message(fleet_pb2.BackendSpec(), done.entry)
        return wire.ChangeBackendResponse(backend=spec, version=done.version, changes=done.changes)

    async def change_node(self, request: wire.ChangeNodeRequest, actor: Actor) -> wire.ChangeNodeResponse:
        done = await self._change(_NODE, request, actor)
        spec, _ = read_message(fleet_pb2.NodeSpec(), done.entry)
        return wire.ChangeNodeResponse(node=spec, version=done.version, changes=done.changes)

    async def change_pool(self, request: wire.ChangePoolRequest, actor: Actor) -> wire.ChangePoolResponse:
        done = await self._change(_POOL, request, actor)
        spec, _ = read_message(fleet_pb2.PoolSpec(), done.entry)
        return wire.ChangePoolResponse(pool=spec, version=done.version, changes=done.changes)

    async def _change(self, kind: _Kind, request: Any, actor: Actor) -> _Done:
        base = request.base_version if request.HasField("base_version") else None
        async with self._turn:
            known = await self._state.export(fleet_pb2.ExportFleetRequest())
            for _ in range(_MOST_TRIES - 1):
                try:
                    return await self._make(kind, known, request, base, actor)
                except NotPossible:
                    before, known = known.version, await self._state.export(fleet_pb2.ExportFleetRequest())
                    # Where somebody else was faster, what was said holds for what is there now as well.
                    if base is not None or known.version == before:
                        raise
            return await self._make(kind, known, request, base, actor)

    async def _make(
        self, kind: _Kind, known: fleet_pb2.ExportFleetResponse, request: Any, base: int | None, actor: Actor
    ) -> _Done:
        held = _held(kind, known, request.name)
        said = {field: value for field, value in plain_of(request).items() if field not in _OF_THE_ORDER}
        may_reset = [f.name for f in request.DESCRIPTOR.fields if f.name not in _NEVER_USUAL]
        if not {*said, *request.reset} <= {*kind.kept_here}:
            _demand_ours(kind, known, request.name)
        entry = kind.patch(held, said, list(request.reset), may_reset)
        wanted, _ = read_message(fleet_pb2.FleetSpec(), {kind.section: [entry]})
        answer = await self._state.apply(
            fleet_pb2.ApplyFleetRequest(wanted=wanted, base_version=known.version if base is None else base), actor
        )
        if answer.problems:
            raise BadInput("\n".join(_told(kind, request.name, problem) for problem in answer.problems))
        fields = {field.field: field.after for change in answer.changes for field in change.fields}
        return _Done(changed(held, fields), answer.version, answer.changes)


def _demand_ours(kind: _Kind, known: fleet_pb2.ExportFleetResponse, name: str) -> None:
    """Raises NotPossible."""
    if f"{kind.section}.{name}" in known.declared:
        raise NotPossible(
            f"{name} stands in the registry's configuration file ([[registry.{kind.section}]] in forebay.toml), which"
            " makes it as it says there at each start: change it there, and start the registry again."
        )


def _held(kind: _Kind, known: fleet_pb2.ExportFleetResponse, name: str) -> Entry:
    """Raises NotFound."""
    entries: Sequence[Message] = getattr(known.fleet, kind.section)
    found = {entry["name"]: entry for entry in map(plain_of, entries)}
    if name in found:
        return found[name]
    if not kind.may_be_new:
        raise NotFound(no_such(kind.word, name, list(found)))
    return {"name": name}


def _told(kind: _Kind, name: str, problem: fleet_pb2.FleetProblem) -> str:
    return f"{problem.path.removeprefix(f'{kind.section}.{name}.')}: {problem.why}"
