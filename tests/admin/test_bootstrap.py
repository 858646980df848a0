"""The first admin: one, however many replicas start, and nobody is locked out by a failure in the middle."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from forebay.database import open_database
from forebay.errors import CannotStart
from forebay_admin.changes import Changes
from forebay_admin.people.bootstrap import ensure_first_admin
from forebay_admin.service import MIGRATIONS
from tests.admin.replica import Running, Start, until

NOW = datetime(2027, 1, 15, tzinfo=UTC)


async def test_replicas_that_start_together_make_one_admin_with_one_key(start: Start) -> None:
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(start(wait=False)) for _ in range(3)]
        await asyncio.gather(*(replica.ready() for replica in replicas))
        for replica in replicas:
            operator = await replica.operator()
            assert [user.name for user in (await operator.ListUsers()).users] == ["admin"]
            assert len((await operator.ListKeys()).keys) == 1


async def test_the_key_is_for_its_owners_eyes_and_stays_when_admin_starts_again(start: Start, admin: Running) -> None:
    file = admin.site.settings.bootstrap_key_file
    assert file is not None
    assert file.stat().st_mode & 0o777 == 0o600
    key = admin.site.first_key
    async with start() as again:
        assert again.site.first_key == key
        assert len((await (await again.operator()).ListKeys()).keys) == 1


async def test_a_key_that_cannot_be_written_makes_no_user(postgres_url: str, tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file where a folder should be")
    async with open_database(postgres_url, "admin") as database:
        await database.migrate(MIGRATIONS)
        with pytest.raises(CannotStart, match="cannot be written"):
            await ensure_first_admin(database, Changes(), tmp_path / "occupied" / "key", b"pepper", NOW)
        assert await ensure_first_admin(database, Changes(), tmp_path / "key", b"pepper", NOW)
        assert not await ensure_first_admin(database, Changes(), tmp_path / "second", b"pepper", NOW)
    assert not (tmp_path / "second").exists()


async def test_without_a_place_for_the_key_the_log_says_how_to_get_one(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with start(bootstrap_key_file=None):
            await until(lambda: "bootstrap_key_file" in caplog.text)
    assert "FOREBAY_ADMIN_BOOTSTRAP_KEY_FILE" in caplog.text
