"""Prices in Postgres: what has begun stays, what was announced begins by itself, and what was there before is taken over."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from forebay.clock import ManualClock
from forebay.database import open_database
from forebay.errors import BadInput, NotPossible
from forebay_admin.changes import Changes
from forebay_admin.models.terms_store import models_since
from forebay_admin.money.price_book import PriceBook
from forebay_admin.money.price_store import add_version, all_versions, cancel_version
from forebay_admin.money.prices import Hardware, Prices, PriceVersion, Tier
from forebay_admin.money.telling import Telling
from forebay_admin.service import MIGRATIONS
from forebay_admin.versions import Since
from forebay_admin.watch import read_policy


async def test_a_price_that_was_announced_begins_by_itself_or_is_taken_back_before(admin_database_url: str) -> None:
    clock, changes = ManualClock(), Changes()
    async with open_database(admin_database_url, "admin") as database:
        await database.migrate(MIGRATIONS)

        def now() -> datetime:
            return datetime.fromtimestamp(clock.now(), UTC)

        async def announce(prices: Prices | None, ahead_s: int | None) -> PriceVersion:
            asked = now() + timedelta(seconds=ahead_s) if ahead_s is not None else None
            async with changes.make(database) as change:
                return await add_version(change, "tiny", prices, asked, "admin", now())

        async def told() -> list[int]:
            await Telling(database, changes, clock).once()
            async with database.reading() as connection:
                return [terms.completion_micros for terms in await models_since(connection, 0)]

        async def all_told(since: Since) -> dict[str, int] | None:
            async with database.reading() as connection:
                update = await read_policy(connection, since, changes.version, now())
            in_force = {price.model: price.terms.completion_micros for price in update.prices}
            return in_force if update.prices_told else None

        async with changes.make(database) as change:
            await add_version(change, "ti*", Prices(completion_micros=7), now() + timedelta(seconds=60), "admin", now())
        assert await all_told(Since(0, is_snapshot=True)) == {}
        await announce(Prices(completion_micros=1), None)
        await announce(Prices(completion_micros=2), 60)
        third = await announce(Prices(completion_micros=3), 120)
        with pytest.raises(BadInput, match="from that moment on already"):
            await announce(Prices(), 60)
        assert await told() == [1]
        before = Since(changes.version, is_snapshot=False)
        assert await all_told(before) is None, "nothing has changed"
        clock.advance(60)
        assert await told() == [2]
        assert await all_told(before) == {"tiny": 2, "ti*": 7}, "by pattern too, once their time has come"
        version = changes.version
        assert await told() == [2]
        assert changes.version == version, "nothing is due, so nobody is woken"
        async with changes.make(database) as change:
            await cancel_version(change, third, now())
        clock.advance(60)
        assert await told() == [2]
        await announce(None, None)
        assert await told() == [0]
        async with database.reading() as connection:
            versions = await all_versions(connection)
        assert [v.prices.completion_micros if v.prices else None for v in versions] == [7, 1, 2, None]
        with pytest.raises(NotPossible, match="and stays"):
            async with changes.make(database) as change:
                await cancel_version(change, versions[0], now())
        for statement in (
            "DELETE FROM admin.price_versions",
            "UPDATE admin.price_versions SET prices = NULL",
        ):
            with pytest.raises(DBAPIError, match="stays as it was"):
                async with database.writing() as connection:
                    await connection.execute(text(statement))


async def test_a_price_whose_time_came_unnoticed_neither_returns_nor_goes(admin_database_url: str) -> None:
    clock, changes = ManualClock(), Changes()
    async with open_database(admin_database_url, "admin") as database:

        def now() -> datetime:
            return datetime.fromtimestamp(clock.now(), UTC)

        async with changes.make(database) as change:
            due = await add_version(
                change, "tiny", Prices(completion_micros=1), now() + timedelta(seconds=60), "a", now()
            )
        clock.advance(61)
        # Requests are billed by it, though the scheduler has not heard of it: it stays.
        with pytest.raises(NotPossible, match="and stays"):
            async with changes.make(database) as change:
                await cancel_version(change, due, now())
        # What is set before the scheduler hears of it is what the scheduler goes on by.
        async with changes.make(database) as change:
            await add_version(change, "tiny", Prices(completion_micros=2), None, "a", now())
        await Telling(database, changes, clock).once()
        async with database.reading() as connection:
            assert [terms.completion_micros for terms in await models_since(connection, 0)] == [2]


async def test_a_price_comes_back_from_the_database_as_it_was_set(admin_database_url: str) -> None:
    prices = Prices(1, 2, 3, 4, 5, 6, (Tier(7, 8, 9, 10), Tier(70, 8, 9, 10)), Hardware(2, 3, 4, 5, 6))
    async with open_database(admin_database_url, "admin") as database:
        now, changes = datetime(2027, 1, 15, tzinfo=UTC), Changes()
        async with changes.make(database) as change:
            made = await add_version(change, "llama*", prices, None, "admin", now)
        async with database.reading() as connection:
            assert await all_versions(connection) == [made]
            assert not await models_since(connection, 0), "the scheduler knows models by their names alone"


async def test_what_cost_something_before_prices_had_versions_costs_the_same_ever_since(
    postgres_url: str, tmp_path: Path
) -> None:
    (tmp_path / "versions").mkdir()
    for file in (MIGRATIONS / "versions").glob("00*.py"):
        if file.name < "0012":
            shutil.copy(file, tmp_path / "versions")
    async with open_database(postgres_url, "admin") as database:
        await database.migrate(tmp_path)
        async with database.writing() as connection:
            await connection.execute(
                text("INSERT INTO admin.model_terms VALUES ('tiny', 1, 2, 3, 1000, 5), ('heavy', 0, 0, 0, 2000, 6)")
            )
        await database.migrate(MIGRATIONS)
        async with database.reading() as connection:
            book = PriceBook(await all_versions(connection))
            assert [terms.model for terms in await models_since(connection, 0)] == ["heavy", "tiny"]
    late = datetime(2020, 1, 1, tzinfo=UTC)
    found = book.price_at("tiny", late)
    assert found is not None
    assert (found.prices, found.created_by) == (Prices(1, 2, 3), "migration")
    assert book.price_at("heavy", late) is None
