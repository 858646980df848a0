"""A backup while it is made: what lies on the disk meanwhile, and what goes away or fails under it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from forebay.local.backup.archive import ArchiveWriter, verify_archive
from forebay.local.backup.making import BackupNotWritten, make_backup
from forebay.local.data_directory import DataDirectory
from forebay.local.postgres_roles import OWNERS

PASSPHRASE = b"a passphrase for this test alone"
DUMPED = b"PGDMP"
"""How a dump of PostgreSQL begins."""


@pytest.fixture
async def data(tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> DataDirectory:
    """Of a Forebay that does not run, with a database of somebody's own."""
    connection = await asyncpg.connect(postgres_url)
    for owner in OWNERS:
        await connection.execute(f"CREATE SCHEMA {owner} CREATE TABLE things (name text)")
    await connection.close()
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    made = DataDirectory(tmp_path / "data")
    made.secrets.mkdir(parents=True)
    (made.secrets / "pepper").write_text("a secret")
    (tmp_path / "backups").mkdir()
    return made


def _readable(folder: Path) -> bytes:
    """All that can be read below it, and in files without a name that are open here."""
    named = [path for path in folder.rglob("*") if path.is_file()]
    opened = [fd for fd in Path("/proc/self/fd").iterdir() if os.path.lexists(fd) and str(folder) in _target(fd)]
    return b"".join(path.read_bytes() for path in (*named, *opened))


def _target(descriptor: Path) -> str:
    try:
        return os.readlink(descriptor)
    except FileNotFoundError:  # the one by which they were listed
        return ""


async def test_nothing_of_a_sealed_backup_lies_open_beside_it_while_it_is_made(
    data: DataDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, seen = ArchiveWriter._add, []

    def looked_at(self: ArchiveWriter, name: str, *more: Any) -> None:
        seen.append((name, DUMPED in _readable(tmp_path / "backups")))
        add(self, name, *more)

    monkeypatch.setattr(ArchiveWriter, "_add", looked_at)
    file, manifest = await make_backup(data, tmp_path / "backups", passphrase=PASSPHRASE)
    assert seen
    assert [name for name, is_open in seen if is_open] == []
    assert list((tmp_path / "backups").iterdir()) == [file]
    assert verify_archive(file, PASSPHRASE) == manifest
    sizes = {member.name: member.size for member in manifest.members}
    assert sizes["postgres.dump"] > 1000
    assert sizes["secrets/pepper"] == len("a secret")


async def test_a_file_that_goes_while_the_others_are_copied_is_left_out(
    data: DataDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going, settings = data.secrets / "going", tmp_path / "forebay.toml"
    going.write_text("soon")
    settings.write_text("")
    add = ArchiveWriter.add_file

    def gone(self: ArchiveWriter, name: str, path: Path) -> None:
        if path in (going, settings):
            path.unlink()
        add(self, name, path)

    monkeypatch.setattr(ArchiveWriter, "add_file", gone)
    file, manifest = await make_backup(data, tmp_path / "backups", passphrase=None, config=settings)
    assert {member.name for member in manifest.members} == {"postgres.dump", "secrets/pepper"}
    assert verify_archive(file, None) == manifest


async def test_a_disk_that_takes_no_more_is_said_and_nothing_is_left(
    data: DataDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ArchiveWriter, "add_aside", full)
    with pytest.raises(BackupNotWritten, match=r"No space left on device.* nothing is left of it"):
        await make_backup(data, tmp_path / "backups", passphrase=None)
    assert list((tmp_path / "backups").iterdir()) == []
