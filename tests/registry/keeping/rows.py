"""Rows that tests of single stores need and other stores write."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from sqlalchemy import text

from forebay.database import Database


async def add_backend(database: Database, backend_id: str, name: str) -> None:
    async with database.writing() as connection:
        await connection.execute(
            text(
                "INSERT INTO registry.backends (id, name, url, pool, slots, enabled, changed_at, changed_by) "
                "VALUES (:id, :name, :url, 'default', 4, true, now(), 'ada')"
            ),
            {"id": backend_id, "name": name, "url": f"http://{name}"},
        )


async def remove_while(database: Database, table: str, subject: str, write: Coroutine[Any, Any, None]) -> None:
    """`write` begins before it is known that the row is gone, and goes on when it is."""
    waits = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    async with database.writing() as removing:
        await removing.execute(text(f"DELETE FROM registry.{table} WHERE id = :id"), {"id": subject})
        writing = asyncio.create_task(write)
        async with asyncio.timeout(10.0):
            is_waiting = False
            while not is_waiting:
                async with database.reading() as watching:
                    is_waiting = bool(await watching.scalar(waits))
    await writing
