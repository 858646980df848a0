"""What of the fleet outlives this process: what is wanted, which `wanted_store` writes, what was last seen, and the agents'
samples.

Every method raises Unavailable while Postgres is away. The names of columns stand in each query: a newer schema may have
more of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.database import Database
from forebay_registry.backend import (
    BackendId,
    Desired,
    EngineKind,
    Kept,
    Model,
    ModelFacts,
    Node,
    NodeId,
    Pool,
    Pull,
    Seen,
)
from forebay_registry.keeping.tables import (
    backend_models,
    backends,
    fleet_counter,
    last_samples,
    model_facts,
    nodes,
    pools,
)
from forebay_registry.nodes.samples import Row, Sample

MIGRATIONS = Path(__file__).parent / "migrations"


class Store:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> Kept:
        async with self._database.reading() as connection:
            # One picture: the queries must not see a change that happens between them.
            await connection.execution_options(isolation_level="REPEATABLE READ")
            wanted = (await connection.execute(_BACKENDS)).all()
            enrolled = (await connection.execute(_NODES)).all()
            models = (await connection.execute(_MODELS)).all()
            described = (await connection.execute(_POOLS)).all()
            facts = (await connection.execute(_MODEL_FACTS)).all()
            version = await connection.scalar(select(fleet_counter.c.version))
        by_backend: dict[str, list[Model]] = {}
        for m in models:
            model = Model(m.name, m.context_length, tuple(m.capabilities), m.loaded)
            by_backend.setdefault(m.backend_id, []).append(model)
        return Kept(
            tuple(_desired(row) for row in wanted),
            tuple(_node(row) for row in enrolled),
            {
                BackendId(row.id): Seen(_kind(row.seen_kind), row.seen_slots, _by_name(by_backend.get(row.id, [])))
                for row in wanted
            },
            pools=tuple(_pool(row) for row in described),
            models=tuple(_model_facts(row) for row in facts),
            version=version or 0,
        )

    async def remember(self, backend_id: BackendId, url: str, seen: Seen) -> None:
        """What the engine at `url` said last; nothing happens when that backend is gone or elsewhere by now."""
        await self.remember_all({backend_id: (url, seen)})

    async def remember_all(self, said: Mapping[BackendId, tuple[str, Seen]]) -> None:
        """The same of several, in one transaction."""
        async with self._database.writing() as connection:
            # In one order, so that two who do this never wait for each other.
            locked = select(backends.c.id, backends.c.url).where(backends.c.id.in_(said)).order_by(backends.c.id)
            at = {row.id: row.url for row in await connection.execute(locked.with_for_update())}
            still = {backend_id: seen for backend_id, (url, seen) in said.items() if at.get(backend_id) == url}
            if still:
                await _write_seen(connection, still)

    async def version(self) -> int:
        """Of the desired state: whoever knows another one does not know the fleet."""
        async with self._database.reading() as connection:
            return await connection.scalar(select(fleet_counter.c.version)) or 0

    async def keep_samples(self, rows: Sequence[Row]) -> None:
        """As the last of their nodes; older ones than are there, and those of nodes that are gone, change nothing."""
        async with self._database.writing() as connection:
            # Locked, since a node that is removed meanwhile would take these rows' ground away.
            theirs = select(nodes.c.id).where(nodes.c.id.in_({row.node_id for row in rows})).order_by(nodes.c.id)
            known = set(await connection.scalars(theirs.with_for_update(read=True, key_share=True)))
            values = [_sample_values(row) for row in rows if row.node_id in known]
            if values:
                await connection.execute(_KEEP_SAMPLE, values)

    async def last_samples(self) -> dict[NodeId, Row]:
        """The last sample of each node."""
        statement = select(*_SAMPLE_COLUMNS, nodes.c.name).join(nodes, nodes.c.id == last_samples.c.node_id)
        async with self._database.reading() as connection:
            found = (await connection.execute(statement)).all()
        return {NodeId(r.node_id): _row(r, r.name) for r in found}


async def _write_seen(connection: AsyncConnection, said: Mapping[BackendId, Seen]) -> None:
    await connection.execute(
        update(backends)
        .where(backends.c.id == bindparam("of"))
        .values(seen_kind=bindparam("said_kind"), seen_slots=bindparam("said_slots")),
        [{"of": backend_id, "said_kind": seen.kind, "said_slots": seen.slots} for backend_id, seen in said.items()],
    )
    await connection.execute(delete(backend_models).where(backend_models.c.backend_id.in_(said)))
    models = [
        {
            "backend_id": backend_id,
            "name": m.name,
            "context_length": m.context_length,
            "capabilities": list(m.capabilities),
            "loaded": m.loaded,
        }
        for backend_id, seen in said.items()
        for m in seen.models
    ]
    if models:
        await connection.execute(insert(backend_models), models)


_BACKENDS = select(
    backends.c.id,
    backends.c.name,
    backends.c.url,
    backends.c.kind,
    backends.c.pool,
    backends.c.slots,
    backends.c.node_id,
    backends.c.enabled,
    backends.c.changed_at,
    backends.c.changed_by,
    backends.c.seen_kind,
    backends.c.seen_slots,
    backends.c.model_names,
    backends.c.gpu_indices,
    backends.c.weight_milli,
    backends.c.kv_tokens,
    backends.c.requests_per_minute,
    backends.c.models_at_once,
    backends.c.labels,
    backends.c.found_by,
)
_NODES = select(
    nodes.c.id,
    nodes.c.name,
    nodes.c.enrolled_at,
    nodes.c.changed_by,
    nodes.c.labels,
    nodes.c.note,
    nodes.c.has_agent,
)
_POOLS = select(pools.c.name, pools.c.hosts, pools.c.path_prefix, pools.c.required_models, pools.c.pull)
_MODEL_FACTS = select(
    model_facts.c.name,
    model_facts.c.capabilities,
    model_facts.c.context_length,
    model_facts.c.quantization,
    model_facts.c.size_bytes,
    model_facts.c.description,
)
_MODELS = select(
    backend_models.c.backend_id,
    backend_models.c.name,
    backend_models.c.context_length,
    backend_models.c.capabilities,
    backend_models.c.loaded,
)
_SAMPLE_COLUMNS = (
    last_samples.c.node_id,
    last_samples.c.agent_started_us,
    last_samples.c.sequence,
    last_samples.c.sampled_at_us,
    last_samples.c.heard_at,
    last_samples.c.payload,
)
_SAMPLE = upsert(last_samples)
_KEEP_SAMPLE = _SAMPLE.on_conflict_do_update(
    index_elements=["node_id"],
    set_={column.name: _SAMPLE.excluded[column.name] for column in _SAMPLE_COLUMNS},
    where=last_samples.c.heard_at <= _SAMPLE.excluded.heard_at,
)


def _by_name(models: list[Model]) -> tuple[Model, ...]:
    # Not by the database's collation, which may order otherwise than the one who read the engine's answer.
    return tuple(sorted(models, key=lambda m: m.name))


def _desired(row: Any) -> Desired:
    return Desired(
        id=BackendId(row.id),
        name=row.name,
        url=row.url,
        kind=_kind(row.kind),
        pool=row.pool,
        slots=row.slots,
        node_id=NodeId(row.node_id) if row.node_id is not None else None,
        changed_by=row.changed_by,
        changed_at=row.changed_at.timestamp(),
        enabled=row.enabled,
        model_names=tuple(sorted(row.model_names.items())),
        gpu_indices=tuple(row.gpu_indices),
        weight_milli=row.weight_milli,
        kv_tokens=row.kv_tokens,
        requests_per_minute=row.requests_per_minute,
        models_at_once=row.models_at_once,
        labels=tuple(sorted(row.labels.items())),
        found_by=row.found_by,
    )


def _node(row: Any) -> Node:
    return Node(
        NodeId(row.id),
        row.name,
        row.enrolled_at.timestamp(),
        row.changed_by,
        labels=tuple(sorted(row.labels.items())),
        note=row.note,
        has_agent=row.has_agent,
    )


def _pool(row: Any) -> Pool:
    # A newer version's word means what this one cannot do: then nothing is done.
    pull = Pull(row.pull) if row.pull in set(Pull) else Pull.NEVER
    return Pool(row.name, tuple(row.hosts), row.path_prefix, tuple(row.required_models), pull)


def _model_facts(row: Any) -> ModelFacts:
    capabilities = tuple(row.capabilities)
    return ModelFacts(row.name, capabilities, row.context_length, row.quantization, row.size_bytes, row.description)


def _kind(word: str | None) -> EngineKind | None:
    # A newer version's word is not known here: found out by probing, as if nobody had said.
    return EngineKind(word) if word in set(EngineKind) else None


def _sample_values(row: Row) -> dict[str, object]:
    return {
        "node_id": row.node_id,
        "agent_started_us": row.sample.agent_started_us,
        "sequence": row.sample.sequence,
        "sampled_at_us": row.sample.sampled_at_us,
        "heard_at": _moment(row.heard_at),
        "payload": row.sample.payload,
    }


def _row(r: Any, node: str) -> Row:
    sample = Sample(node, r.agent_started_us, r.sequence, r.sampled_at_us, r.payload)
    return Row(NodeId(r.node_id), r.heard_at.timestamp(), sample)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
