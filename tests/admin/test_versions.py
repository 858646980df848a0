"""The counter: none skipped, none visible before the ones below it, whoever writes at the same time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from forebay.database import Database, open_database
from forebay_admin.changes import Changes, current_version
from forebay_admin.keys.key_store import add_key
from forebay_admin.keys.keys import KeyOrder, Limits
from forebay_admin.keys.principal_store import principals_since
from forebay_admin.people.people import Role, User, UserOrder
from forebay_admin.people.people_store import add_user
from forebay_admin.service import MIGRATIONS
from forebay_admin.updates import updates
from forebay_admin.versions import Since, what_to_send

NOW = datetime(2027, 1, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("known", "current", "sent"),
    [
        (0, 1, Since(0, is_snapshot=True)),
        (0, 9, Since(0, is_snapshot=True)),
        (9, 9, None),
        (7, 9, Since(7, is_snapshot=False)),
        (10, 9, Since(0, is_snapshot=True)),
    ],
)
def test_a_watcher_gets_what_it_lacks(known: int, current: int, sent: Since | None) -> None:
    assert what_to_send(known, current) == sent


@pytest.fixture
async def replicas(admin_database_url: str) -> AsyncIterator[tuple[Database, Database]]:
    async with open_database(admin_database_url, "admin") as one, open_database(admin_database_url, "admin") as two:
        await one.migrate(MIGRATIONS)
        yield one, two


async def test_no_version_is_skipped_and_no_delta_missed_by_20_writers_on_two_replicas(
    replicas: tuple[Database, Database],
) -> None:
    writing = [Changes(), Changes()]
    async with writing[0].make(replicas[0]) as change:
        owner = await add_user(change, UserOrder("alice", "everyone", Role.MEMBER), NOW)
    start = change.version

    async def write(number: int) -> int:
        """One key; every fifth writer thinks better of it."""
        which = number % 2
        await asyncio.sleep(random.random() * 0.05)
        try:
            async with writing[which].make(replicas[which]) as change:
                await _key(change, f"{number:012x}", owner)
                await asyncio.sleep(random.random() * 0.003)
                if number % 5 == 0:
                    raise ValueError("never mind")
                return change.version
        except ValueError:
            return 0

    seen: dict[str, int] = {}

    async def watch() -> None:
        """Reads deltas as fast as it can while they are written."""
        known = start
        while len(seen) < 80:
            async with replicas[1].reading() as connection:
                current = await current_version(connection)
                await asyncio.sleep(0)  # rows may be committed between the look at the counter and the look at them
                for principal in await principals_since(connection, known):
                    seen.setdefault(principal.key_id, current)
            known = current

    watching = asyncio.create_task(watch())
    versions: list[int] = []
    for first in range(0, 100, 20):
        versions += await asyncio.gather(*(write(n) for n in range(first, first + 20)))
    await asyncio.wait_for(watching, 10)
    kept = sorted(v for v in versions if v)
    assert kept == list(range(start + 1, start + 81)), "a version is missing or doubled"
    assert set(seen) == {f"{n:012x}" for n in range(100) if n % 5}


async def test_a_watcher_is_woken_by_a_writer_elsewhere_and_told_versions_in_order(
    replicas: tuple[Database, Database], admin_database_url: str
) -> None:
    here, there = Changes(), Changes()
    told: list[int] = []

    async def read(connection: object, since: Since, current: int) -> Told:
        return Told(current, since.is_snapshot)

    async def watch() -> None:
        async for update in updates(replicas[1], there, 0, read):
            told.append(update.version)
            assert update.is_snapshot == (len(told) == 1)

    following = asyncio.create_task(there.follow(admin_database_url, lambda why: None))
    watching = asyncio.create_task(watch())
    try:
        async with asyncio.timeout(10):
            while not told:
                await asyncio.sleep(0.01)
            for number in range(10):
                async with here.make(replicas[0]) as change:
                    await add_user(change, UserOrder(f"user{number}", "everyone", Role.MEMBER), NOW)
                await asyncio.sleep(0.01)
            while told[-1] < change.version:
                await asyncio.sleep(0.01)
    finally:
        for task in (watching, following):
            task.cancel()
        await asyncio.gather(watching, following, return_exceptions=True)
    assert told == sorted(set(told))
    assert told[-1] == change.version


async def test_a_database_restored_from_an_older_copy_is_told_as_a_snapshot(
    replicas: tuple[Database, Database], admin_database_url: str
) -> None:
    changes = Changes()
    told: list[tuple[int, bool]] = []

    async def read(connection: object, since: Since, current: int) -> Told:
        return Told(current, since.is_snapshot)

    async def watch() -> None:
        async for update in updates(replicas[1], changes, 0, read):
            told.append((update.version, update.is_snapshot))

    for _ in range(3):
        async with changes.make(replicas[0]):
            pass
    following = asyncio.create_task(changes.follow(admin_database_url, lambda why: None))
    watching = asyncio.create_task(watch())
    try:
        async with asyncio.timeout(10):
            while told != [(4, True)]:
                await asyncio.sleep(0.01)
            async with replicas[0].writing() as connection:
                await connection.execute(text("UPDATE admin.version SET value = 2"))
            while len(told) < 2:
                await asyncio.sleep(0.01)
    finally:
        for task in (watching, following):
            task.cancel()
        await asyncio.gather(watching, following, return_exceptions=True)
    assert told == [(4, True), (2, True)]


class Told:
    def __init__(self, version: int, is_snapshot: bool) -> None:
        self.version = version
        self.is_snapshot = is_snapshot


async def _key(change: object, public_id: str, owner: User) -> None:
    await add_key(
        change,  # type: ignore[arg-type]
        public_id=public_id,
        secret_hmac=bytes(32),
        order=KeyOrder(owner.name, "key", Limits()),
        owner=owner,
        created_by="test",
        now=NOW,
    )
