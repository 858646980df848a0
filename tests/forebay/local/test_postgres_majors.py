"""From one major version of PostgreSQL to the next, with two real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from forebay.errors import CannotStart
from forebay.local import postgres as postgres_module
from forebay.local import postgres_majors
from forebay.local.postgres import open_postgres
from forebay.local.postgres_binaries import Binaries, find_binaries
from forebay.local.postgres_dump import DumpFailed
from forebay.local.postgres_roles import ensure_roles

FindPort = Callable[[], int]
OLD = next(iter(sorted(Path("/usr/lib/postgresql").glob("1[3-7]"))), None)
needs_old = pytest.mark.skipif(OLD is None, reason="needs an older PostgreSQL: apt install postgresql")


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Whether the older programs are the installed ones."""

    async def find_old() -> Binaries:
        assert OLD is not None
        return Binaries(OLD, int(OLD.name))

    def choose(is_old: bool) -> None:
        monkeypatch.setattr(postgres_module, "find_binaries", find_old if is_old else find_binaries)

    return choose


async def _fill(place: Path, port: int) -> None:
    async with open_postgres(place / "postgres", secrets=place / "secrets", port=port, log=place / "log") as postgres:
        urls = await ensure_roles(postgres.superuser_url, place / "secrets")
        for url in (urls.admin, urls.registry):
            connection = await asyncpg.connect(url)
            await connection.execute("CREATE TABLE rows (id bigserial PRIMARY KEY, word text DEFAULT 'ä')")
            await connection.execute("INSERT INTO rows SELECT n FROM generate_series(1, 1000) AS n")
            await connection.close()


@needs_old
async def test_data_of_an_older_major_is_moved_and_what_was_there_is_kept(
    place: Path, free_port: FindPort, old: Callable[[bool], None]
) -> None:
    old(True)
    await _fill(place, free_port())
    old(False)
    said: list[str] = []
    for _ in range(2):
        async with open_postgres(
            place / "postgres", secrets=place / "secrets", port=free_port(), log=place / "log", say=said.append
        ) as postgres:
            urls = await ensure_roles(postgres.superuser_url, place / "secrets")
            for url in (urls.admin, urls.registry):
                connection = await asyncpg.connect(url)
                assert await connection.fetchval("SHOW server_version_num") >= "170000"
                assert await connection.fetchval("SELECT count(*) FROM rows WHERE word = 'ä'") == 1000
                await connection.execute("ALTER TABLE rows ADD COLUMN IF NOT EXISTS mine int")  # it owns them still
                await connection.close()
    assert OLD is not None
    assert (place / "postgres" / f"data.{OLD.name}" / "PG_VERSION").read_text().strip() == OLD.name
    assert [line[:20] for line in said] == ["Moving the database ", "The database is Post"]
    assert not list((place / "postgres").glob("*.dump"))


@needs_old
async def test_a_move_that_fails_changes_nothing_and_can_be_done_again(
    place: Path, free_port: FindPort, old: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    old(True)
    await _fill(place, free_port())
    old(False)
    where = {"secrets": place / "secrets", "log": place / "log"}
    with monkeypatch.context() as broken:

        async def fails(*_: object, **__: object) -> None:
            raise DumpFailed("The disk is full.")

        broken.setattr(postgres_majors, "restore", fails)
        with pytest.raises(CannotStart, match=r"The disk is full\. The old data is as it was"):
            async with open_postgres(place / "postgres", port=free_port(), **where):  # type: ignore[arg-type]
                pytest.fail("it started")
    with pytest.raises(CannotStart, match="start Forebay once"):
        async with open_postgres(place / "postgres", port=free_port(), may_move=False, **where):  # type: ignore[arg-type]
            pytest.fail("it started")
    old(True)
    async with open_postgres(place / "postgres", port=free_port(), **where) as postgres:  # type: ignore[arg-type]
        urls = await ensure_roles(postgres.superuser_url, place / "secrets")
        connection = await asyncpg.connect(urls.admin)
        assert await connection.fetchval("SELECT count(*) FROM rows") == 1000
        await connection.close()
    old(False)
    async with open_postgres(place / "postgres", port=free_port(), **where) as postgres:  # type: ignore[arg-type]
        assert postgres.server.pid


@needs_old
async def test_a_move_that_is_cut_between_its_two_last_steps_is_finished_at_the_next_start(
    place: Path, free_port: FindPort
) -> None:
    await _fill(place, free_port())
    folder = place / "postgres"
    (folder / "data").rename(folder / "data.next")  # the old one has been put aside already
    (folder / "data.next.whole").touch()
    async with open_postgres(folder, secrets=place / "secrets", port=free_port(), log=place / "log") as postgres:
        urls = await ensure_roles(postgres.superuser_url, place / "secrets")
        connection = await asyncpg.connect(urls.admin)
        assert await connection.fetchval("SELECT count(*) FROM rows") == 1000
        await connection.close()


async def test_without_the_old_programs_it_says_which_and_changes_nothing(place: Path, free_port: FindPort) -> None:
    await _fill(place, free_port())
    (place / "postgres" / "data" / "PG_VERSION").write_text("9\n")
    (place / "postgres" / "programs").unlink()
    with pytest.raises(CannotStart, match=r"apt install postgresql-9.*Nothing was changed"):
        async with open_postgres(place / "postgres", secrets=place / "secrets", port=free_port(), log=place / "log"):
            pytest.fail("it started")
    assert (place / "postgres" / "data" / "PG_VERSION").read_text() == "9\n"
