"""The desired state in Postgres: each change in one transaction with its version, whose counter is locked in it.

Every method raises Unavailable while Postgres is away."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Table, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.database import Database
from forebay.errors import AlreadyExists
from forebay_registry.backend import Desired, Kept, ModelFacts, Node, Pool
from forebay_registry.keeping.store import Store
from forebay_registry.keeping.tables import (
    backend_models,
    backends,
    fleet_counter,
    fleet_versions,
    model_facts,
    nodes,
    pools,
)
from forebay_registry.wanted.state import Change, Edit, Kind, Outdated, Version


class WantedStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> Kept:
        """With what was last seen."""
        return await Store(self._database).load()

    async def write(self, edit: Edit) -> None:
        """All of it or nothing. Raises Outdated when it was decided against another version than there is now, and
        AlreadyExists when a name or an address is taken."""
        try:
            async with self._database.writing() as connection:
                version = await connection.scalar(select(fleet_counter.c.version).with_for_update())
                if version != edit.base_version:
                    raise Outdated
                await _remove(connection, edit)
                await _put(connection, edit)
                if edit.changes:
                    await _note(connection, edit)
        except IntegrityError as error:
            # Decided against what this process knows, written against what is so.
            raise AlreadyExists("A name or an address of this change is taken by another one already.") from error

    async def versions(self, *, limit: int, before: int | None = None, after: int = 0) -> tuple[Version, ...]:
        """Those before `before` and after `after`, newest first."""
        statement = (
            select(fleet_versions.c.version, fleet_versions.c.at, fleet_versions.c.actor, fleet_versions.c.changes)
            .where(fleet_versions.c.version > after)
            .order_by(fleet_versions.c.version.desc())
            .limit(limit)
        )
        if before is not None:
            statement = statement.where(fleet_versions.c.version < before)
        async with self._database.reading() as connection:
            rows = (await connection.execute(statement)).all()
        return tuple(Version(r.version, r.at.timestamp(), r.actor, _changes(r.changes)) for r in rows)


async def _remove(connection: AsyncConnection, edit: Edit) -> None:
    for table, key, gone in (
        (backends, backends.c.id, edit.gone_backends),
        (nodes, nodes.c.id, edit.gone_nodes),
        (pools, pools.c.name, edit.gone_pools),
        (model_facts, model_facts.c.name, edit.gone_models),
    ):
        if gone and table is nodes:
            # What stays may have run there before this change.
            await connection.execute(update(backends).where(backends.c.node_id.in_(gone)).values(node_id=None))
        if gone:
            await connection.execute(delete(table).where(key.in_(gone)))


async def _put(connection: AsyncConnection, edit: Edit) -> None:
    await _upsert(connection, nodes, "id", [_node(node) for node in edit.nodes])
    await _make_room(connection, edit.backends)
    await _upsert(connection, backends, "id", [_backend(backend) for backend in edit.backends])
    said = {"changed_at": _moment(edit.at), "changed_by": edit.actor}
    await _upsert(connection, pools, "name", [_pool(pool) | said for pool in edit.pools])
    await _upsert(connection, model_facts, "name", [_model(model) | said for model in edit.models])


async def _make_room(connection: AsyncConnection, wanted: Sequence[Desired]) -> None:
    """Another address makes what was seen void; and two that change places would be in each other's way."""
    if not wanted:
        return
    by_id = {backend.id: backend.url for backend in wanted}
    held = await connection.execute(
        select(backends.c.id, backends.c.url).where(backends.c.id.in_(by_id)).order_by(backends.c.id).with_for_update()
    )
    moved = [row.id for row in held if by_id[row.id] != row.url]
    if moved:
        nowhere = func.concat("moving:", backends.c.id)
        away = {"url": nowhere, "seen_kind": None, "seen_slots": None}
        await connection.execute(update(backends).where(backends.c.id.in_(moved)).values(away))
        await connection.execute(delete(backend_models).where(backend_models.c.backend_id.in_(moved)))


async def _upsert(connection: AsyncConnection, table: Table, key: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        statement = upsert(table)
        changed = {name: statement.excluded[name] for name in rows[0] if name != key}
        await connection.execute(statement.on_conflict_do_update(index_elements=[key], set_=changed), rows)


async def _note(connection: AsyncConnection, edit: Edit) -> None:
    await connection.execute(update(fleet_counter).values(version=edit.version))
    await connection.execute(
        insert(fleet_versions).values(
            version=edit.version,
            at=_moment(edit.at),
            actor=edit.actor,
            changes=[
                {
                    "kind": str(change.kind),
                    "name": change.name,
                    "before": dict(change.before) if change.before is not None else None,
                    "after": dict(change.after) if change.after is not None else None,
                }
                for change in edit.changes
            ],
        )
    )


def _changes(told: list[dict[str, Any]]) -> tuple[Change, ...]:
    # A newer version may know of more kinds of things.
    known = (change for change in told if change["kind"] in set(Kind))
    return tuple(Change(Kind(c["kind"]), c["name"], c["before"], c["after"]) for c in known)


def _backend(wanted: Desired) -> dict[str, Any]:
    return {
        "id": wanted.id,
        "name": wanted.name,
        "url": wanted.url,
        "kind": wanted.kind,
        "pool": wanted.pool,
        "slots": wanted.slots,
        "node_id": wanted.node_id,
        "enabled": wanted.enabled,
        "changed_at": _moment(wanted.changed_at),
        "changed_by": wanted.changed_by,
        "model_names": dict(wanted.model_names),
        "gpu_indices": list(wanted.gpu_indices),
        "weight_milli": wanted.weight_milli,
        "kv_tokens": wanted.kv_tokens,
        "requests_per_minute": wanted.requests_per_minute,
        "models_at_once": wanted.models_at_once,
        "labels": dict(wanted.labels),
        "found_by": wanted.found_by,
    }


def _node(node: Node) -> dict[str, Any]:
    return {
        "id": node.id,
        "name": node.name,
        "enrolled_at": _moment(node.enrolled_at),
        "changed_by": node.enrolled_by,
        "labels": dict(node.labels),
        "note": node.note,
        "has_agent": node.has_agent,
    }


def _pool(pool: Pool) -> dict[str, Any]:
    return {
        "name": pool.name,
        "hosts": list(pool.hosts),
        "path_prefix": pool.path_prefix,
        "required_models": list(pool.required_models),
        "pull": pool.pull,
    }


def _model(model: ModelFacts) -> dict[str, Any]:
    return {
        "name": model.name,
        "capabilities": list(model.capabilities),
        "context_length": model.context_length,
        "quantization": model.quantization,
        "size_bytes": model.size_bytes,
        "description": model.description,
    }


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
