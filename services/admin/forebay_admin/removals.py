"""The names of what was removed from the policy, so that a watcher who knew it hears that it is gone. Each function works on
the caller's transaction."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay_admin.changes import Change
from forebay_admin.tables import policy_removals


class Removable(StrEnum):
    GROUP = "group"
    """By id."""
    MODEL = "model"
    POOL = "pool"


async def note_removal(change: Change, kind: Removable, name: str) -> None:
    await change.connection.execute(
        insert(policy_removals)
        .values(kind=kind.value, name=name, version=change.version)
        .on_conflict_do_update(
            index_elements=[policy_removals.c.kind, policy_removals.c.name], set_={"version": change.version}
        )
    )


async def note_return(change: Change, kind: Removable, name: str) -> None:
    """It is there (again)."""
    await change.connection.execute(
        delete(policy_removals).where(policy_removals.c.kind == kind.value, policy_removals.c.name == name)
    )


async def removed_since(connection: AsyncConnection, after: int) -> dict[Removable, list[str]]:
    """At a version above `after`."""
    rows = await connection.execute(
        select(policy_removals.c.kind, policy_removals.c.name)
        .where(policy_removals.c.version > after)
        .order_by(policy_removals.c.name)
    )
    removed: dict[Removable, list[str]] = {kind: [] for kind in Removable}
    for row in rows:
        removed[Removable(row.kind)].append(row.name)
    return removed
