"""Makes a Forebay again from a backup, in an empty data directory: verified before anything is written, and taken away again
when it cannot be finished."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from forebay.errors import BadInput
from forebay.local.backup.archive import Manifest, extract_archive, verify_archive
from forebay.local.backup.making import DUMP, SETTINGS
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
    `root` is not empty, BackupDamaged, NotOpened, CannotStart, DumpFailed, StreamNotCopied."""
    was_there = await asyncio.to_thread(_demand_empty, root)
    say("Verifying the backup")
    manifest = await asyncio.to_thread(verify_archive, file, passphrase)
    try:
        with open_data_directory(root) as data:
            # Twice: the files, and the tables and streams that are made from them.
            demand_space(root, 2 * sum(member.size for member in manifest.members), "to restore this backup")
            say("Unpacking it")
            await asyncio.to_thread(extract_archive, file, passphrase, root, manifest)
            async with AsyncExitStack() as stack:
                await _restore_tables(stack, data, say)
                await _restore_streams(stack, data, say)
            (root / DUMP).unlink()
            shutil.rmtree(root / _STREAMS, ignore_errors=True)
            (root / "lock").unlink()
    except BaseException:
        _clear(root, was_there)
        raise
    return data, manifest


def _demand_empty(root: Path) -> bool:
    """Whether it is there."""
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise BadInput(f"{root} is not empty: a backup is restored into a new data directory only. Name another one.")
    return root.exists()


def _clear(root: Path, was_there: bool) -> None:
    shutil.rmtree(root, ignore_errors=True)
    if was_there:
        root.mkdir(mode=0o711, exist_ok=True)


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
    if not copies or os.environ.get("NATS_URL"):
        return
    say("Restoring the streams of NATS")
    bus = open_nats(data.nats, secrets=data.secrets, port=any_free_port(), users=(USER,), log=data.log("nats"))
    nats = await stack.enter_async_context(bus)
    async with open_streams(nats.url, nats.seed_file(USER), None) as connection:
        for copied in copies:
            await put_stream_back(connection, copied.name, copied)
