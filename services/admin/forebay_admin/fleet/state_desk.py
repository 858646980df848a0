"""Operators' calls about the desired state of the fleet as a whole: authorised and audited here, decided and kept by the
registry, except for what admin keeps itself (`own_part`).

What is admin's cannot change in the transaction of what is the registry's: it follows it, and where that fails, the same
call again does the rest."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import orjson

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import Unavailable
from forebay.wire.v1 import fleet_pb2 as wire
from forebay.wire.v1 import registry_pb2
from forebay_admin.audit.audit_store import Act, Facts, record
from forebay_admin.changes import Change, Changes
from forebay_admin.fleet.credential_store import CredentialStore, holders
from forebay_admin.fleet.credentials import origin
from forebay_admin.fleet.moving import without_keys
from forebay_admin.fleet.own_part import OwnPlan, PoolSaid, plan_own
from forebay_admin.fleet.registry_client import RegistryClient
from forebay_admin.models.model_rules_store import all_aliases, keep_alias, remove_alias
from forebay_admin.models.terms import PoolTerms
from forebay_admin.models.terms_store import keep_pool, pools_since
from forebay_admin.people.access import Actor

log = logging.getLogger(__name__)

_VERBS = {
    wire.FLEET_CHANGE_KIND_CREATED: "created",
    wire.FLEET_CHANGE_KIND_CHANGED: "changed",
    wire.FLEET_CHANGE_KIND_REMOVED: "removed",
}
_OWN_POOL_FIELDS = ("placement", "sticky", "locality_window")


class FleetStateDesk:
    def __init__(
        self, database: Database, changes: Changes, credentials: CredentialStore, registry: RegistryClient, clock: Clock
    ) -> None:
        self._database = database
        self._changes = changes
        self._credentials = credentials
        self._registry = registry
        self._clock = clock

    async def apply(self, request: wire.ApplyFleetRequest, actor: Actor) -> wire.ApplyFleetResponse:
        async with self._database.reading() as connection:  # what cannot be audited is not begun
            own = plan_own(
                [_pool_said(pool) for pool in request.wanted.pools],
                {model.name: list(model.aliases) for model in request.wanted.models},
                {terms.pool: terms for terms in await pools_since(connection, 0)},
                await all_aliases(connection),
            )
            held = await holders(connection)
        backends = {backend.name: backend for backend in await self._registry.backends()}
        moved = [
            spec.name
            for spec in request.wanted.backends
            if (known := backends.get(spec.name)) is not None and known.id in held and _moves(known, spec)
        ]
        problems = [wire.FleetProblem(path=problem.path, why=problem.why) for problem in own.problems]
        problems += [_lost_key(name) for name in moved if name not in request.with_new_key]
        order = wire.ChangeFleetRequest(
            actor=actor.name,
            wanted=_registrys_part(request.wanted, (await self._registry.read_fleet(None)).fleet),
            prune=request.prune,
            dry_run=True,
            base_version=request.base_version if request.HasField("base_version") else None,
        )
        answer = await self._registry.change_fleet(order)
        told = {problem.path for problem in problems}
        problems += [problem for problem in answer.problems if problem.path not in told]
        if problems:
            return wire.ApplyFleetResponse(version=answer.version, problems=problems)
        if not request.dry_run:
            order.dry_run = False
            order.base_version = answer.version
            async with without_keys(
                self._database, self._changes, self._credentials, [backends[name].id for name in moved], self._now()
            ):
                answer = await self._registry.change_fleet(order)
            if answer.problems:  # of what changed in between
                return wire.ApplyFleetResponse(version=answer.version, problems=answer.problems)
            await self._keep(answer, own, backends, actor)
        return wire.ApplyFleetResponse(
            version=answer.version, changes=_with_own(answer.changes, own), notes=answer.notes
        )

    async def export(self, request: wire.ExportFleetRequest) -> wire.ExportFleetResponse:
        told = await self._registry.read_fleet(request.version if request.HasField("version") else None)
        if not request.HasField("version"):
            async with self._database.reading() as connection:
                terms, aliases = await pools_since(connection, 0), await all_aliases(connection)
            for one in terms:
                _say_terms(_entry(told.fleet.pools, one.pool), one)
            for alias in aliases:
                if not alias.pool:
                    _entry(told.fleet.models, alias.model).aliases.append(alias.alias)
        return wire.ExportFleetResponse(fleet=told.fleet, version=told.version, declared=told.declared)

    async def show_versions(self, request: wire.ShowFleetVersionsRequest) -> wire.ShowFleetVersionsResponse:
        versions = await self._registry.fleet_versions(request.limit, request.before_version)
        return wire.ShowFleetVersionsResponse(versions=versions)

    async def _keep(
        self,
        answer: wire.ChangeFleetResponse,
        own: OwnPlan,
        backends: dict[str, registry_pb2.Backend],
        actor: Actor,
    ) -> None:
        changes = _with_own(answer.changes, own)
        if not changes:
            return
        try:
            async with self._changes.make(self._database) as change:
                await self._keep_own(change, own)
                for one in answer.changes:
                    if one.kind == "backend" and one.what == wire.FLEET_CHANGE_KIND_REMOVED and one.name in backends:
                        await self._credentials.remove(change, backends[one.name].id, self._now())
                for one in changes:
                    await record(change.connection, _act(one, actor), self._now())
        except Unavailable as error:
            raise Unavailable(
                f"The registry has version {answer.version} of the fleet, but Postgres went away before the rest was "
                "written; apply the same again."
            ) from error

    async def _keep_own(self, change: Change, own: OwnPlan) -> None:
        for _, terms in own.terms:
            await keep_pool(change, terms)
        for alias in own.removed:
            await remove_alias(change, alias.alias, alias.pool)
        for alias in own.put:
            await keep_alias(change, alias)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


def _moves(known: registry_pb2.Backend, spec: wire.BackendSpec) -> bool:
    try:
        return origin(known.url) != origin(spec.url)
    except ValueError:  # no address at all, which the registry will say
        return False


def _lost_key(name: str) -> wire.FleetProblem:
    why = (
        "It moves to another address, and its key was given for the old one: give the key for the new one too "
        "(bearer_file), or remove the backend's keys first."
    )
    return wire.FleetProblem(path=f"backends.{name}.url", why=why)


def _pool_said(pool: wire.PoolSpec) -> PoolSaid:
    return PoolSaid(
        pool.name,
        pool.placement,
        pool.sticky if pool.HasField("sticky") else None,
        pool.locality_window if pool.HasField("locality_window") else None,
    )


def _registrys_part(wanted: wire.FleetSpec, now: wire.FleetSpec) -> wire.FleetSpec:
    """Without what is ours; and without what is only ours, which is no wish for the registry to keep."""
    theirs = wire.FleetSpec(nodes=wanted.nodes, backends=wanted.backends)
    described = {pool.name for pool in now.pools}
    for pool in wanted.pools:
        rest = wire.PoolSpec()
        rest.CopyFrom(pool)
        for field in _OWN_POOL_FIELDS:
            rest.ClearField(field)  # type: ignore[arg-type]
        if pool.name in described or rest != wire.PoolSpec(name=pool.name) or rest == pool:
            theirs.pools.append(rest)
    known = {model.name for model in now.models}
    for model in wanted.models:
        facts = wire.ModelSpec()
        facts.CopyFrom(model)
        facts.ClearField("aliases")
        if model.name in known or facts != wire.ModelSpec(name=model.name) or facts == model:
            theirs.models.append(facts)
    return theirs


def _with_own(changes: Iterable[wire.FleetChange], own: OwnPlan) -> list[wire.FleetChange]:
    merged = list(wire.ApplyFleetResponse(changes=changes).changes)  # copies: this is asked for twice

    def of(kind: str, name: str) -> wire.FleetChange:
        for one in merged:
            if (one.kind, one.name) == (kind, name):
                return one
        merged.append(wire.FleetChange(kind=kind, name=name, what=wire.FLEET_CHANGE_KIND_CHANGED))
        return merged[-1]

    for before, after in own.terms:
        fields, earlier = _terms(after), _terms(before) if before is not None else {}
        of("pool", after.pool).fields.extend(
            wire.FieldChange(field=name, before=_json(earlier.get(name)), after=_json(value))
            for name, value in fields.items()
            if earlier.get(name) != value
        )
    for model, (were, are) in own.aliases.items():
        changed = wire.FieldChange(field="aliases", before=_json(list(were) or None), after=_json(list(are)))
        of("model", model).fields.append(changed)
    return merged


def _terms(terms: PoolTerms) -> dict[str, str | bool | int | None]:
    return {
        "placement": terms.placement.value,
        "sticky": terms.sticky,
        "locality_window": terms.locality_window,
    }


def _say_terms(pool: wire.PoolSpec, terms: PoolTerms) -> None:
    pool.placement = terms.placement.value
    pool.sticky = terms.sticky
    if terms.locality_window is not None:
        pool.locality_window = terms.locality_window


def _entry(entries: Any, name: str) -> Any:
    """Of a repeated field, the one of that name; added when there is none."""
    for entry in entries:
        if entry.name == name:
            return entry
    return entries.add(name=name)


def _json(value: object) -> str:
    return "" if value is None else orjson.dumps(value).decode()


def _act(change: wire.FleetChange, actor: Actor) -> Act:
    before: Facts = {field.field: field.before for field in change.fields if field.before}
    after: Facts = {field.field: field.after for field in change.fields if field.after}
    return Act(
        actor.name,
        f"fleet.{change.kind}.{_VERBS.get(change.what, 'changed')}",
        change.name,
        actor_key_id=actor.key_id,
        before=before if change.what != wire.FLEET_CHANGE_KIND_CREATED else None,
        after=after if change.what != wire.FLEET_CHANGE_KIND_REMOVED else None,
    )
