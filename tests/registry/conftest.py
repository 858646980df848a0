"""What the registry's tests stand on: a session for probes, a store on a database of its own, and a fake admin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from forebay.database import Database, open_database
from forebay.local.postgres import Postgres
from forebay_registry.backend import Desired, Node
from forebay_registry.keeping.store import MIGRATIONS, Store
from forebay_registry.keeping.wanted_store import WantedStore
from forebay_registry.links import open_session
from forebay_registry.wanted.state import Wanted, edit_between
from tests.conftest import Migrated, database_like

Want = Callable[..., Awaitable[None]]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as session:
        yield session


@pytest.fixture
async def registry_database_url(postgres_server: Postgres, migrated: Migrated) -> AsyncIterator[str]:
    """The address of a database of this test's own, with the registry's tables in it."""
    async with database_like(postgres_server, migrated("registry", MIGRATIONS)) as url:
        yield url


@pytest.fixture
async def database(registry_database_url: str) -> AsyncIterator[Database]:
    async with open_database(registry_database_url, "registry") as database:
        yield database


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)


@pytest.fixture
def want(database: Database) -> Want:
    """`await want(NODE, BACKEND, gone={"big"})`: stored as wanted, and the backends called so not any more."""

    async def make(*things: Desired | Node, gone: Collection[str] = ()) -> None:
        store = WantedStore(database)
        kept = await store.load()
        before = Wanted(kept.version, {b.id: b for b in kept.backends}, {n.id: n for n in kept.nodes}, {}, {})
        backends = {i: b for i, b in before.backends.items() if b.name not in gone}
        backends |= {thing.id: thing for thing in things if isinstance(thing, Desired)}
        nodes = {**before.nodes, **{thing.id: thing for thing in things if isinstance(thing, Node)}}
        edit = edit_between(before, replace(before, backends=backends, nodes=nodes), actor="ada", at=1.0)
        if edit is not None:
            await store.write(edit)

    return make


async def _eventually(holds: Callable[[], Any], within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.005)


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """`await eventually(lambda: …)`: returns when it holds, TimeoutError when it never does."""
    return _eventually
