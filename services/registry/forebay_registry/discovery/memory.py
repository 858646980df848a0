"""What the discovery keeps in Postgres: where nodes are and what may be done there, and what was added by itself.

Every method raises Unavailable while Postgres is away."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert as upsert

from forebay.database import Database
from forebay_registry.backend import NodeId
from forebay_registry.discovery.offers import Policy, Site
from forebay_registry.keeping.tables import found_engines, node_discovery, nodes


class DiscoveryStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def sites(self) -> dict[NodeId, Site]:
        """Of every node; of one that nobody said anything of, its name."""
        d = node_discovery.c
        statement = select(nodes.c.id, nodes.c.name, d.policy, d.pool, d.addresses, d.joined_from).outerjoin(
            node_discovery, d.node_id == nodes.c.id
        )
        async with self._database.reading() as connection:
            rows = (await connection.execute(statement)).all()
        return {
            NodeId(r.id): Site(r.name, _policy(r.policy), r.pool or "", tuple(r.addresses or ()), r.joined_from or "")
            for r in rows
        }

    async def remembered(self) -> dict[str, str]:
        """Address of what was added by itself → who found it."""
        async with self._database.reading() as connection:
            rows = (await connection.execute(select(found_engines.c.url, found_engines.c.found_by))).all()
        return {r.url: r.found_by for r in rows}

    async def put_site(self, node_id: NodeId, site: Site) -> None:
        values = {
            "policy": str(site.policy or ""),
            "pool": site.pool,
            "addresses": list(site.addresses),
            "joined_from": site.joined_from,
        }
        await self._put_site(node_id, values)

    async def note_joined(self, node_id: NodeId, joined_from: str) -> None:
        await self._put_site(node_id, {"joined_from": joined_from})

    async def remember(self, added: Mapping[str, str], now: float) -> None:
        values = [
            {"url": url, "found_by": found_by, "added_at": datetime.fromtimestamp(now, UTC)}
            for url, found_by in added.items()
        ]
        if values:
            async with self._database.writing() as connection:
                await connection.execute(upsert(found_engines).on_conflict_do_nothing(), values)

    async def forget(self, urls: Collection[str]) -> None:
        async with self._database.writing() as connection:
            await connection.execute(delete(found_engines).where(found_engines.c.url.in_(urls)))

    async def _put_site(self, node_id: NodeId, values: Mapping[str, object]) -> None:
        statement = upsert(node_discovery).values(node_id=node_id, **values)
        async with self._database.writing() as connection:
            await connection.execute(statement.on_conflict_do_update(index_elements=["node_id"], set_=dict(values)))


def _policy(word: str | None) -> Policy | None:
    return Policy(word) if word in set(Policy) else None
