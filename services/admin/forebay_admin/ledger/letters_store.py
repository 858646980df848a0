"""Dead letters in Postgres: what came as usage and could not be a row."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import BadInput, NotFound
from forebay_admin.tables import dead_letters


@dataclass(frozen=True, slots=True)
class Letter:
    digest: bytes
    received_at: datetime
    subject: str
    why: str
    size: int
    payload: bytes
    """Empty where it was not asked for."""

    @property
    def id(self) -> str:
        return self.digest.hex()


_HEAD = (
    dead_letters.c.digest,
    dead_letters.c.received_at,
    dead_letters.c.subject,
    dead_letters.c.why,
    func.octet_length(dead_letters.c.payload).label("size"),
)
_NEWEST_FIRST = (dead_letters.c.received_at.desc(), dead_letters.c.digest)


async def newest_letters(connection: AsyncConnection, after: bytes | None, limit: int) -> list[Letter]:
    """Without what they hold. `after`: the digest of one. Raises NotFound when that is gone."""
    query: Select[Any] = select(*_HEAD).order_by(*_NEWEST_FIRST).limit(limit)
    if after is not None:
        last = await connection.scalar(select(dead_letters.c.received_at).where(dead_letters.c.digest == after))
        if last is None:
            raise NotFound("The dead letter with which the page before ended is gone: begin anew.")
        at, digest = dead_letters.c.received_at, dead_letters.c.digest
        query = query.where((at < last) | ((at == last) & (digest > after)))
    return [_letter(row) for row in await connection.execute(query)]


async def count_letters(connection: AsyncConnection) -> int:
    return await connection.scalar(select(func.count()).select_from(dead_letters)) or 0


async def letter_with_id(connection: AsyncConnection, beginning: str) -> Letter:
    """With what it holds. Raises NotFound, BadInput when several begin so."""
    hexadecimal = func.encode(dead_letters.c.digest, "hex")
    query = select(*_HEAD, dead_letters.c.payload).where(hexadecimal.startswith(beginning, autoescape=True)).limit(2)
    rows = (await connection.execute(query)).all()
    if not rows:
        raise NotFound(f"There is no dead letter {beginning}.")
    if len(rows) > 1:
        raise BadInput(f"Several dead letters begin with {beginning}: give more of it.")
    return _letter(rows[0])


async def letters_with(connection: AsyncConnection, digests: Collection[bytes] | None, limit: int) -> Sequence[Letter]:
    """With what they hold, the oldest first; None: any."""
    query: Select[Any] = select(*_HEAD, dead_letters.c.payload)
    if digests is not None:
        query = query.where(dead_letters.c.digest.in_(digests))
    order = (dead_letters.c.received_at, dead_letters.c.digest)
    return [_letter(row) for row in await connection.execute(query.order_by(*order).limit(limit))]


async def forget_letters(connection: AsyncConnection, digests: Collection[bytes]) -> None:
    await connection.execute(delete(dead_letters).where(tuple_(dead_letters.c.digest).in_([(d,) for d in digests])))


def _letter(row: Any) -> Letter:
    return Letter(row.digest, row.received_at, row.subject, row.why, row.size, getattr(row, "payload", b""))
