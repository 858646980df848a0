"""What of the fleet outlives this process: the wanted backends and nodes, what was last seen, and the agents' samples.

Every method raises Unavailable while Postgres is away. The names of columns stand in each query: a newer schema may have
more of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.database import Database
from forebay.errors import AlreadyExists
from forebay_registry.backend import BackendId, Desired, EngineKind, Kept, Model, Node, NodeId, Seen
from forebay_registry.keeping.tables import backend_models, backends, node_samples, nodes
from forebay_registry.nodes.samples import Row, Sample

MIGRATIONS = Path(__file__).parent / "migrations"


class Store:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> Kept:
        async with self._database.reading() as connection:
            # One picture: the three queries must not see a change that happens between them.
            await connection.execution_options(isolation_level="REPEATABLE READ")
            wanted = (await connection.execute(_BACKENDS)).all()
            enrolled = (await connection.execute(_NODES)).all()
            models = (await connection.execute(_MODELS)).all()
        by_backend: dict[str, list[Model]] = {}
        for m in models:
            model = Model(m.name, m.context_length, tuple(m.capabilities), m.loaded)
            by_backend.setdefault(m.backend_id, []).append(model)
        return Kept(
            tuple(_desired(row) for row in wanted),
            tuple(Node(NodeId(n.id), n.name, n.enrolled_at.timestamp(), n.changed_by) for n in enrolled),
            {
                BackendId(row.id): Seen(_kind(row.seen_kind), row.seen_slots, _by_name(by_backend.get(row.id, [])))
                for row in wanted
            },
        )

    async def put_backend(self, wanted: Desired) -> None:
        """Adds it or changes the one of this id; another address makes what was seen void. Raises AlreadyExists."""
        values = {
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
        }
        statement = upsert(backends).values(id=wanted.id, **values)
        try:
            async with self._database.writing() as connection:
                url = await connection.scalar(
                    select(backends.c.url).where(backends.c.id == wanted.id).with_for_update()
                )
                await connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))
                if url is not None and url != wanted.url:
                    await _write_seen(connection, wanted.id, Seen())
        except IntegrityError as error:
            # Decided against what this process knows, written against what is so.
            raise AlreadyExists(f"Another backend has the name {wanted.name} or the address {wanted.url}.") from error

    async def remove_backend(self, backend_id: BackendId) -> None:
        async with self._database.writing() as connection:
            await connection.execute(delete(backends).where(backends.c.id == backend_id))

    async def remember(self, backend_id: BackendId, url: str, seen: Seen) -> None:
        """What the engine at `url` said last; nothing happens when that backend is gone or elsewhere by now."""
        async with self._database.writing() as connection:
            at = await connection.scalar(select(backends.c.url).where(backends.c.id == backend_id).with_for_update())
            if at == url:
                await _write_seen(connection, backend_id, seen)

    async def add_node(self, node: Node) -> None:
        """Raises AlreadyExists."""
        values = {
            "id": node.id,
            "name": node.name,
            "enrolled_at": _moment(node.enrolled_at),
            "changed_by": node.enrolled_by,
        }
        try:
            async with self._database.writing() as connection:
                await connection.execute(insert(nodes).values(values))
        except IntegrityError as error:
            raise AlreadyExists(f"There is a node {node.name} already.") from error

    async def add_samples(self, rows: Sequence[Row]) -> None:
        """All or none; rows that are there already, and those of nodes that are gone, change nothing."""
        async with self._database.writing() as connection:
            known = set(await connection.scalars(select(nodes.c.id)))
            values = [_sample_values(row) for row in rows if row.node_id in known]
            if values:
                await connection.execute(upsert(node_samples).on_conflict_do_nothing(), values)

    async def last_samples(self) -> dict[NodeId, Row]:
        """The newest sample that is kept of each node."""
        statement = (
            select(*_SAMPLE_COLUMNS, nodes.c.name)
            .ext(distinct_on(node_samples.c.node_id))
            .join(nodes, nodes.c.id == node_samples.c.node_id)
            .order_by(node_samples.c.node_id, node_samples.c.heard_at.desc(), node_samples.c.sequence.desc())
        )
        async with self._database.reading() as connection:
            found = (await connection.execute(statement)).all()
        return {NodeId(r.node_id): _row(r, r.name) for r in found}

    async def forget_samples(self, before: float) -> int:
        """Removes what was heard before then; how many."""
        async with self._database.writing() as connection:
            gone = await connection.execute(delete(node_samples).where(node_samples.c.heard_at < _moment(before)))
            return gone.rowcount


async def _write_seen(connection: AsyncConnection, backend_id: BackendId, seen: Seen) -> None:
    of_this = backends.c.id == backend_id
    await connection.execute(update(backends).where(of_this).values(seen_kind=seen.kind, seen_slots=seen.slots))
    await connection.execute(delete(backend_models).where(backend_models.c.backend_id == backend_id))
    if seen.models:
        await connection.execute(
            insert(backend_models),
            [
                {
                    "backend_id": backend_id,
                    "name": m.name,
                    "context_length": m.context_length,
                    "capabilities": list(m.capabilities),
                    "loaded": m.loaded,
                }
                for m in seen.models
            ],
        )


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
)
_NODES = select(nodes.c.id, nodes.c.name, nodes.c.enrolled_at, nodes.c.changed_by)
_MODELS = select(
    backend_models.c.backend_id,
    backend_models.c.name,
    backend_models.c.context_length,
    backend_models.c.capabilities,
    backend_models.c.loaded,
)
_SAMPLE_COLUMNS = (
    node_samples.c.node_id,
    node_samples.c.agent_started_us,
    node_samples.c.sequence,
    node_samples.c.sampled_at_us,
    node_samples.c.heard_at,
    node_samples.c.payload,
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
    )


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
