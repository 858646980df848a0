"""When each key was used last, to the minute: noted as minutes of the ledger are summed up, so that no request writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay_admin.tables import SCHEMA

_NOTE = text(
    f"INSERT INTO {SCHEMA}.key_uses (key_id, used_at) "
    f"SELECT key_id, max(at) FROM {SCHEMA}.usage_minutes "
    "WHERE cut = 'whole' AND at = ANY(CAST(:at AS timestamptz[])) AND key_id <> '' GROUP BY key_id "
    "ON CONFLICT (key_id) DO UPDATE SET used_at = excluded.used_at WHERE key_uses.used_at < excluded.used_at"
)
_READ = text(f"SELECT key_id, used_at FROM {SCHEMA}.key_uses WHERE key_id = ANY(CAST(:ids AS text[]))")


async def note_uses(connection: AsyncConnection, minutes: Sequence[datetime]) -> None:
    """In the transaction that has summed these minutes up."""
    await connection.execute(_NOTE, {"at": list(minutes)})


async def last_uses(connection: AsyncConnection, key_ids: Sequence[str]) -> Mapping[str, datetime]:
    """Of those of these keys that were ever used."""
    rows = await connection.execute(_READ, {"ids": list(key_ids)})
    return {row.key_id: row.used_at for row in rows}
