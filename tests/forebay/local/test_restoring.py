"""A restore that cannot be: nothing of anybody else's is touched, and nothing that is none of a backup's is believed."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from forebay.errors import BadInput, CannotStart
from forebay.local.backup import restoring
from forebay.local.backup.archive import BackupDamaged, Manifest, verify_archive, write_archive
from forebay.local.backup.restoring import restore_backup
from forebay.local.data_directory import open_data_directory
from forebay.local.postgres import Postgres
from forebay.local.postgres_dump import DumpFailed, dump, restore
from forebay.local.postgres_roles import OWNERS
from tests.conftest import database_like, free_port


def _backup(place: Path, member: str = "secrets/pepper") -> Path:
    file = place / "a.backup"
    with write_archive(file, None) as archive:
        archive.add_bytes(member, b"x")
        archive.finish({"made_at": "now"})
    return file


@pytest.mark.parametrize("stays", [True, False], ids=["and runs", "and has ended"])
async def test_who_took_the_directory_while_the_backup_was_verified_keeps_what_is_in_it(
    stays: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    with ExitStack() as other:

        def verify(file: Path, passphrase: bytes | None) -> Manifest:
            other.enter_context(open_data_directory(root))
            (root / "secrets" / "pepper").write_text("another's")
            if not stays:
                other.close()
            return verify_archive(file, passphrase)

        monkeypatch.setattr(restoring, "verify_archive", verify)
        with pytest.raises(CannotStart if stays else BadInput):
            await restore_backup(_backup(tmp_path), root, passphrase=None)
        assert (root / "secrets" / "pepper").read_text() == "another's"


@pytest.mark.parametrize("was_there", [True, False])
async def test_what_fails_half_way_is_taken_away_and_the_folder_that_was_there_stays_as_it_was(
    was_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    if was_there:
        root.mkdir(mode=0o750)

    async def fail(*_: object) -> None:
        assert (root / "secrets" / "pepper").exists()
        raise CannotStart("no database")

    monkeypatch.setattr(restoring, "_restore_tables", fail)
    with pytest.raises(CannotStart, match="no database"):
        await restore_backup(_backup(tmp_path), root, passphrase=None)
    assert root.exists() == was_there
    if was_there:
        assert list(root.iterdir()) == []
        assert root.stat().st_mode & 0o777 == 0o750


async def test_a_start_for_which_there_is_no_room_is_no_reason_to_refuse_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    with monkeypatch.context() as full:
        full.setattr("forebay.local.data_directory._LEAST_FREE", 1 << 60)
        with pytest.raises(CannotStart, match="is full"):
            await restore_backup(_backup(tmp_path), root, passphrase=None)

    async def fail(*_: object) -> None:
        raise CannotStart("it came as far as the tables")

    monkeypatch.setattr(restoring, "_restore_tables", fail)
    with pytest.raises(CannotStart, match="as far as the tables"):
        await restore_backup(tmp_path / "a.backup", root, passphrase=None)


@pytest.mark.parametrize("member", ["postgres/programs", "lock", "nats/jetstream/x"])
async def test_what_says_which_programs_run_is_never_from_a_backup(member: str, tmp_path: Path) -> None:
    with pytest.raises(BackupDamaged, match="which no backup"):
        await restore_backup(_backup(tmp_path, member), tmp_path / "data", passphrase=None)
    assert not (tmp_path / "data").exists()


async def test_records_on_their_way_are_not_left_out_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:4222")
    with pytest.raises(BadInput, match=r"NATS_URL names another one\. Unset it, restore"):
        await restore_backup(_backup(tmp_path, "streams/usage"), tmp_path / "data", passphrase=None)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+asyncpg"])
async def test_a_database_that_is_not_there_is_said_so(scheme: str, tmp_path: Path) -> None:
    url = f"{scheme}://forebay:secret@127.0.0.1:{free_port()}/forebay"
    with pytest.raises(DumpFailed, match="cannot be reached") as failed:
        await restore(tmp_path / "a.dump", [("admin", url)], programs=tmp_path)
    assert "secret" not in failed.value.message


async def test_tables_come_last_so_that_nothing_stays_in_a_database_when_the_rest_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    went: list[str] = []

    async def tables(*_: object) -> None:
        went.append("tables")

    async def streams(*_: object) -> None:
        went.append("streams")
        raise CannotStart("no NATS")

    monkeypatch.setattr(restoring, "_restore_tables", tables)
    monkeypatch.setattr(restoring, "_restore_streams", streams)
    with pytest.raises(CannotStart, match="no NATS"):
        await restore_backup(_backup(tmp_path), tmp_path / "data", passphrase=None)
    assert went == ["streams"]


async def test_a_schema_that_cannot_be_restored_takes_the_other_one_along_and_the_next_try_needs_no_clearing(
    postgres_server: Postgres, postgres_url: str, place: Path
) -> None:
    dumped = place / "a.dump"
    urls = [(owner, postgres_url) for owner in OWNERS]
    async with database_like(postgres_server, "template1") as source:
        await _execute(source, "CREATE FUNCTION public.one() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        await _execute(source, "CREATE SCHEMA admin CREATE TABLE things (number int)")
        await _execute(source, "CREATE SCHEMA registry CREATE TABLE things (number int DEFAULT public.one())")
        await _execute(source, "INSERT INTO admin.things VALUES (7)")
        await dump(source, dumped)
    with pytest.raises(DumpFailed, match=r"public\.one"):
        await restore(dumped, urls)
    assert await _execute(postgres_url, "SELECT to_regclass('admin.things')") is None
    await _execute(postgres_url, "CREATE FUNCTION public.one() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    await restore(dumped, urls)
    assert await _execute(postgres_url, "SELECT number FROM admin.things") == 7
    assert await _execute(postgres_url, "SELECT to_regclass('registry.things')") is not None
    with pytest.raises(DumpFailed, match="DROP SCHEMA admin CASCADE"):
        await restore(dumped, urls)


async def _execute(url: str, statement: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()
