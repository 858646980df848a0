"""Which of a provider's people is which of ours, in Postgres. Each function works on the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, insert, select
from sqlalchemy.dialects.postgresql import insert as insert_or
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay_admin.sign_in.tables import identities, spent_states


@dataclass(frozen=True, slots=True)
class Identity:
    provider: str
    issuer: str
    subject: str
    linked_at: datetime


async def identities_of(connection: AsyncConnection, user_id: str) -> list[Identity]:
    rows = await connection.execute(
        select(identities).where(identities.c.user_id == user_id).order_by(identities.c.linked_at)
    )
    return [Identity(row.provider, row.issuer, row.subject, row.linked_at) for row in rows]


async def user_id_of(connection: AsyncConnection, issuer: str, subject: str) -> str | None:
    found: str | None = await connection.scalar(
        select(identities.c.user_id).where(identities.c.issuer == issuer, identities.c.subject == subject)
    )
    return found


async def link(
    connection: AsyncConnection, *, issuer: str, subject: str, user_id: str, provider: str, now: datetime
) -> None:
    await connection.execute(
        insert(identities).values(issuer=issuer, subject=subject, user_id=user_id, provider=provider, linked_at=now)
    )


async def spend_state(connection: AsyncConnection, mark: bytes, until: datetime, now: datetime) -> bool:
    """Whether it was not spent before. It is remembered until it would be refused for its age."""
    await connection.execute(delete(spent_states).where(spent_states.c.until < now))
    spent = await connection.execute(
        insert_or(spent_states).values(mark=mark, until=until).on_conflict_do_nothing().returning(spent_states.c.mark)
    )
    return spent.first() is not None
