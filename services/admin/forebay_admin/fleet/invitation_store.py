"""Invitations and the agents that used them, in Postgres. Each function works on the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import AlreadyExists
from forebay_admin.changes import Change
from forebay_admin.fleet.invitations import Invitation
from forebay_admin.tables import node_agents, node_invitations


@dataclass(frozen=True, slots=True)
class Agent:
    """Who may speak for a node on the bus."""

    node: str
    public_nkey: str


async def invite(
    connection: AsyncConnection, *, token_sha256: bytes, node: str, created_by: str, now: datetime, life: timedelta
) -> Invitation:
    """A new invitation takes the place of those of this node that nobody has used."""
    await connection.execute(
        delete(node_invitations).where(node_invitations.c.node == node, node_invitations.c.used_at.is_(None))
    )
    invitation = Invitation(node, now + life)
    await connection.execute(
        insert(node_invitations).values(
            token_sha256=token_sha256,
            node=node,
            created_by=created_by,
            created_at=now,
            expires_at=invitation.expires_at,
        )
    )
    return invitation


async def find_invitation(
    connection: AsyncConnection, token_sha256: bytes, *, for_update: bool = False
) -> Invitation | None:
    """`for_update` locks it until the transaction ends: of two that come at once, one waits and finds it used."""
    query = select(
        node_invitations.c.node,
        node_invitations.c.expires_at,
        node_invitations.c.used_at,
        node_invitations.c.used_by_nkey,
    ).where(node_invitations.c.token_sha256 == token_sha256)
    row = (await connection.execute(query.with_for_update() if for_update else query)).first()
    return Invitation(row.node, row.expires_at, row.used_at, row.used_by_nkey) if row is not None else None


async def use_invitation(
    change: Change, token_sha256: bytes, invitation: Invitation, *, public_nkey: str, hostname: str, now: datetime
) -> str | None:
    """Binds the node to the nkey; the nkey it had before, if any. Raises AlreadyExists when another node has it."""
    connection = change.connection
    other = await connection.scalar(
        select(node_agents.c.node).where(
            node_agents.c.public_nkey == public_nkey, node_agents.c.node != invitation.node
        )
    )
    if other is not None:
        raise AlreadyExists(f"This nkey belongs to the node {other}; make a new one for {invitation.node}.")
    before: str | None = await connection.scalar(
        select(node_agents.c.public_nkey).where(node_agents.c.node == invitation.node)
    )
    bound = {"public_nkey": public_nkey, "hostname": hostname, "enrolled_at": now, "version": change.version}
    await connection.execute(
        upsert(node_agents)
        .values(node=invitation.node, **bound)
        .on_conflict_do_update(index_elements=[node_agents.c.node], set_=bound)
    )
    await connection.execute(
        update(node_invitations)
        .where(node_invitations.c.token_sha256 == token_sha256)
        .values(used_at=now, used_by_nkey=public_nkey)
    )
    return before


async def list_agents(connection: AsyncConnection) -> list[Agent]:
    """By node."""
    rows = await connection.execute(select(node_agents.c.node, node_agents.c.public_nkey).order_by(node_agents.c.node))
    return [Agent(row.node, row.public_nkey) for row in rows]
