"""Makes a Forebay again from a backup, in an empty data directory: verified before anything is written, and taken away again
when it cannot be finished."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from forebay.errors import BadInput
from forebay.local.backup.archive import BackupDamaged, Manifest, extract_archive, verify_archive
from forebay.local.backup.making import DUMP, NEVER_COPIED, SETTINGS
from forebay.local.backup.streams import USER, open_streams, put_stream_back
from forebay.local.data_directory import DataDirectory, demand_space, open_data_directory
from forebay.local.nats import open_nats
from forebay.local.ports import any_free_port
from forebay.local.postgres import open_postgres
from forebay.local.postgres_dump import restore
from forebay.local.postgres_roles import OWNERS, ensure_roles

_STREAMS = "streams"

Say = Callable[[str], None]


async def restore_backup(
    file: Path, root: Path, *, passphrase: bytes | None, say: Say = lambda line: None
) -> tuple[DataDirectory, Manifest]:
    """The data directory that `forebay up` then starts from. With DATABASE_URL the tables go there. Raises BadInput when
    `root` is not empty or NATS_URL leaves no place for its streams, BackupDamaged, NotOpened, CannotStart, DumpFailed,
    StreamNotCopied."""
    was_there = await asyncio.to_thread(root.exists)
    await asyncio.to_thread(_demand_empty, root)
    say("Verifying the backup")
    manifest = await asyncio.to_thread(verify_archive, file, passphrase)
    _demand_ours(file, manifest)
    _demand_place_for_streams(manifest)
    with open_data_directory(root) as data:
        await asyncio.to_thread(_demand_empty, root)  # verifying takes a while, and somebody may have come before us
        try:
            # Twice: the files, and the tables and streams that are made from them.
            demand_space(root, 2 * sum(member.size for member in manifest.members), "to restore this backup")
            say("Unpacking it")
            await asyncio.to_thread(extract_archive, file, passphrase, root, manifest)
            async with AsyncExitStack() as stack:
                await _restore_streams(stack, data, say)
                # Last: in a database of somebody's own they are there once and for all, and whatever failed afterwards
                # would leave them behind, for the next restore to stumble over.
                await _restore_tables(stack, data, say)
            (root / DUMP).unlink()
            shutil.rmtree(root / _STREAMS, ignore_errors=True)
            (root / "lock").unlink()
        except BaseException:
            _clear(root, was_there)
            raise
    return data, manifest


def _demand_empty(root: Path) -> None:
    """Empty folders and the lock are nothing: who finds no room to start leaves them."""
    if root.exists() and (not root.is_dir() or any(_is_held(path, root) for path in root.rglob("*"))):
        raise BadInput(f"{root} is not empty: a backup is restored into a new data directory only. Name another one.")


def _is_held(path: Path, root: Path) -> bool:
    return path != root / "lock" and (path.is_symlink() or not path.is_dir())


def _demand_ours(file: Path, manifest: Manifest) -> None:
    """What is made anew at each start is never from a backup: it tells, for one, which programs are run as PostgreSQL."""
    for member in manifest.members:
        if any(member.name == name or member.name.startswith(f"{name}/") for name in NEVER_COPIED):
            raise BackupDamaged(f"{file} holds {member.name!r}, which no backup of Forebay's does.")


def _demand_place_for_streams(manifest: Manifest) -> None:
    """Records that were on their way are in streams, and into a server that is not ours none are put."""
    if os.environ.get("NATS_URL") and any(member.name.startswith(f"{_STREAMS}/") for member in manifest.members):
        raise BadInput(
            "This backup has records that were on their way, which go into the NATS that comes along, and NATS_URL names "
            "another one. Unset it, restore, and start once without it; when admin has taken them in, set it again."
        )


def _clear(root: Path, was_there: bool) -> None:
    """Only while the directory is held: else it may be another's."""
    for path in root.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if not was_there:
        with suppress(OSError):  # what could not be removed is no news beside why all of it failed
            root.rmdir()


def settings_of(data: DataDirectory) -> Path | None:
    """The settings file that was in the backup."""
    file = data.root / SETTINGS
    return file if file.exists() else None


async def _restore_tables(stack: AsyncExitStack, data: DataDirectory, say: Say) -> None:
    say("Restoring PostgreSQL's tables")
    given = os.environ.get("DATABASE_URL")
    if given:
        urls = [(owner, given) for owner in OWNERS]
    else:
        opening = open_postgres(
            data.postgres,
            secrets=data.secrets,
            port=any_free_port(),
            log=data.log("postgres"),
        )
        postgres = await stack.enter_async_context(opening)
        roles = await ensure_roles(postgres.superuser_url, data.secrets)
        urls = [("admin", roles.admin), ("registry", roles.registry)]
    await restore(data.root / DUMP, urls)


async def _restore_streams(stack: AsyncExitStack, data: DataDirectory, say: Say) -> None:
    copies = sorted((data.root / _STREAMS).glob("*"))
    if not copies:
        return
    say("Restoring the streams of NATS")
    bus = open_nats(data.nats, secrets=data.secrets, port=any_free_port(), users=(USER,), log=data.log("nats"))
    nats = await stack.enter_async_context(bus)
    async with open_streams(nats.url, nats.seed_file(USER), None) as connection:
        for copied in copies:
            await put_stream_back(connection, copied.name, copied)
