"""What the registry's tests stand on: a session for probes, a store on a database of its own, and a fake admin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from forebay.database import Database, open_database
from forebay_registry.keeping.store import MIGRATIONS, Store
from forebay_registry.service import open_session


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as session:
        yield session


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    async with open_database(postgres_url, "registry") as database:
        await database.prepare(MIGRATIONS)
        yield database


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)


async def _eventually(holds: Callable[[], Any], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.005)


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """`await eventually(lambda: …)`: returns when it holds, TimeoutError when it never does."""
    return _eventually
