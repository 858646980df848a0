"""Reading the audit log: what operators look for, the newest first, and its chain, link by link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Select, Text, cast, exists, func, or_, select
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay_admin.audit.chain import Anchor, Damage, Entry, Fault, Link
from forebay_admin.tables import audit_chain, audit_head, audit_log

_log, _chain = audit_log.c, audit_chain.c
_BEFORE, _AFTER = cast(_log.before, Text), cast(_log.after, Text)
# Whole microseconds, reckoned as the chain does.
_AT_US = cast(func.extract("epoch", _log.at) * 1_000_000, BigInteger)
_ENTRY = (
    _log.id.label("id"),
    _AT_US.label("at_us"),
    _log.actor,
    _log.actor_key_id,
    _log.interface,
    _log.address,
    _log.action,
    _log.subject,
    _BEFORE.label("before"),
    _AFTER.label("after"),
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of the log. Empty and None: any."""

    since: datetime | None = None
    until: datetime | None = None
    actor: str = ""
    action: str = ""
    """Noun and verb, or the noun alone: `key` is every key.…"""
    subject: str = ""
    interface: str = ""
    address: str = ""
    text: str = ""
    """Somewhere in who, what, and how it was before and after; capitals do not matter."""
    before_id: int | None = None
    """Only what was written before that."""


@dataclass(frozen=True, slots=True)
class Found:
    entry: Entry
    seq: int
    hash: bytes


async def search(connection: AsyncConnection, wanted: Wanted, limit: int) -> Sequence[Found]:
    """The newest first."""
    query: Select[Any] = select(*_ENTRY, _chain.seq, _chain.hash).select_from(
        audit_log.outerjoin(audit_chain, _chain.entry_id == _log.id)
    )
    for column, value in (
        (_log.actor, wanted.actor),
        (_log.subject, wanted.subject),
        (_log.interface, wanted.interface),
    ):
        if value:
            query = query.where(column == value)
    if wanted.address:
        query = query.where(_log.address == wanted.address)
    if wanted.action:
        whole = wanted.action.rstrip(".*")
        query = query.where(or_(_log.action == whole, _log.action.startswith(f"{whole}.", autoescape=True)))
    if wanted.since is not None:
        query = query.where(_log.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(_log.at < wanted.until)
    if wanted.before_id is not None:
        query = query.where(_log.id < wanted.before_id)
    if wanted.text:
        places = (_log.actor, _log.actor_key_id, _log.action, _log.subject, _log.address, _BEFORE, _AFTER)
        query = query.where(or_(*(place.icontains(wanted.text, autoescape=True) for place in places)))
    rows = await connection.execute(query.order_by(_log.id.desc()).limit(limit))
    return [Found(_entry(row), row.seq or 0, row.hash or b"") for row in rows]


async def read_head(connection: AsyncConnection) -> Anchor:
    row = (await connection.execute(select(audit_head.c.seq, audit_head.c.hash))).one()
    return Anchor(row.seq, row.hash)


async def links_after(connection: AsyncConnection, after: int, last: int, limit: int) -> Sequence[Link]:
    """Those with numbers above `after` and up to `last`, with their entries, in their order."""
    query = (
        select(_chain.seq, _chain.entry_id, _chain.form, _chain.previous, _chain.hash, *_ENTRY)
        .select_from(audit_chain.outerjoin(audit_log, _log.id == _chain.entry_id))
        .where(_chain.seq > after, _chain.seq <= last)
        .order_by(_chain.seq)
        .limit(limit)
    )
    return [
        Link(
            row.seq,
            row.entry_id,
            row.form,
            row.previous,
            row.hash,
            _entry(row) if row.id is not None else None,
        )
        for row in await connection.execute(query)
    ]


async def first_unchained(connection: AsyncConnection) -> Fault | None:
    """An entry is chained by the commit that writes it, so one without a link was put there otherwise."""
    query = select(func.min(_log.id)).where(~exists().where(_chain.entry_id == _log.id))
    entry_id = await connection.scalar(query)
    if entry_id is None:
        return None
    return Fault(Damage.INSERTED, 0, entry_id, "the entry is in no link of the chain")


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        row.id,
        row.at_us,
        row.actor,
        row.actor_key_id,
        row.interface,
        row.address,
        row.action,
        row.subject,
        row.before,
        row.after,
    )
