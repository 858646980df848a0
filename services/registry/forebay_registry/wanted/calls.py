"""The gRPC methods about the desired state of the fleet as a whole: parse, decide, reply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from forebay.errors import NotFound, NotPossible
from forebay.wire.v1 import fleet_pb2 as wire
from forebay_registry.fleet.fleet import View
from forebay_registry.wanted.plan import FleetAnswer
from forebay_registry.wanted.specs import FleetOrder
from forebay_registry.wanted.state import Version, Wanted, document, earlier
from forebay_registry.wanted.wire import from_spec, to_changes, to_problems, to_spec, to_version

_USUAL_VERSIONS = 50
_MOST_VERSIONS = 1000
_MOST_BACK = 20_000
_NEWEST = 2**63 - 1
"""Of any version that Postgres could have."""


class Fleet(Protocol):
    """As much of the roster as these calls need."""

    def views(self) -> Sequence[View]: ...
    def wanted(self) -> Wanted: ...
    async def change_fleet(
        self, order: FleetOrder, *, actor: str, prune: bool, dry_run: bool, base_version: int | None = None
    ) -> FleetAnswer: ...


class Remembers(Protocol):
    async def versions(self, *, limit: int, before: int | None = None, after: int = 0) -> tuple[Version, ...]: ...


class FleetCalls:
    def __init__(self, fleet: Fleet, store: Remembers, declared: Sequence[str] = ()) -> None:
        """`declared`: paths of what the configuration file says."""
        self._fleet = fleet
        self._store = store
        self._declared = declared

    async def change(self, request: wire.ChangeFleetRequest) -> wire.ChangeFleetResponse:
        """Raises Outdated, Unavailable."""
        order, misread = from_spec(request.wanted)
        answer = await self._fleet.change_fleet(
            order,
            actor=request.actor,
            prune=request.prune,
            # Where something cannot be read, what else is wrong is told along with it.
            dry_run=request.dry_run or bool(misread),
            base_version=request.base_version if request.HasField("base_version") else None,
        )
        told = {problem.path for problem in misread}
        problems = [*misread, *(problem for problem in answer.problems if problem.path not in told)]
        if problems:
            return wire.ChangeFleetResponse(version=answer.version, problems=to_problems(problems))
        return wire.ChangeFleetResponse(version=answer.version, changes=to_changes(answer.changes), notes=answer.notes)

    async def read(self, request: wire.ReadFleetRequest) -> wire.ReadFleetResponse:
        """Raises NotFound, NotPossible, Unavailable."""
        self._fleet.views()  # raises while the fleet is not known
        wanted = self._fleet.wanted()
        asked = request.version if request.HasField("version") else wanted.version
        if asked > wanted.version:
            raise NotFound(f"There is no version {asked} of the fleet; the newest is {wanted.version}.")
        newest = document(wanted)
        if asked < wanted.version:
            if wanted.version - asked > _MOST_BACK:
                raise NotPossible(
                    f"Version {asked} is {wanted.version - asked} changes ago; at most {_MOST_BACK} are gone back over."
                )
            since = await self._store.versions(limit=_MOST_BACK, before=wanted.version + 1, after=asked)
            newest = earlier(newest, since)
        return wire.ReadFleetResponse(fleet=to_spec(newest), version=asked, declared=self._declared)

    async def versions(self, request: wire.ListFleetVersionsRequest) -> wire.ListFleetVersionsResponse:
        """Raises Unavailable."""
        found = await self._store.versions(
            limit=min(request.limit or _USUAL_VERSIONS, _MOST_VERSIONS),
            before=min(request.before_version, _NEWEST) or None,
        )
        return wire.ListFleetVersionsResponse(versions=[to_version(version) for version in found])
