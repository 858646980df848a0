"""Where the bytes of files lie: behind a small Protocol, so that an object store can stand where today a directory does.

What a file is called by clients and whose it is, is the database's; here are random names and bytes."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from forebay.errors import CannotStart, ForebayError, NotPossible, Unavailable
from forebay_admin.content.content import BlobName
from forebay_admin.unbroken import to_its_end

log = logging.getLogger(__name__)

PIECE_BYTES = 256 * 1024

_UNFINISHED = ".part"
_OURS = re.compile(rf"[0-9a-f]{{32}}({re.escape(_UNFINISHED)})?")


class BlobWriter(Protocol):
    @property
    def name(self) -> BlobName: ...

    async def write(self, piece: bytes) -> None:
        """Raises Unavailable."""

    async def keep(self) -> None:
        """When this returns, the blob is whole, on disk and under its name. Raises Unavailable."""


class BlobStore(Protocol):
    def writing(self) -> AbstractAsyncContextManager[BlobWriter]:
        """A new blob. Left before `keep` returned, nothing of it stays. Raises NotPossible, Unavailable."""

    def read(self, name: BlobName) -> AsyncGenerator[bytes, None]:
        """In pieces of at most PIECE_BYTES, also when it is deleted meanwhile. Raises ForebayError when it is not there."""

    async def read_part(self, name: BlobName, first_byte: int, size_bytes: int) -> bytes:
        """So many bytes of it, or fewer where it ends. Raises ForebayError when it is not there."""

    async def delete(self, name: BlobName) -> None:
        """One that is not there, too. Raises Unavailable."""

    async def names_before(self, moment: float) -> list[BlobName]:
        """Everything last written before that time (seconds since the epoch), the unfinished too. Raises Unavailable."""


def open_blobs(directory: Path | None) -> BlobStore:
    """The directory is made when it is not there. Raises CannotStart."""
    if directory is None:
        return NoBlobs()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sync_directory(directory)
    except OSError as error:
        raise CannotStart(f"content_dir {directory} cannot be used: {error.strerror}.") from error
    return DirectoryBlobs(directory)


class DirectoryBlobs:
    """A file for each blob. Written as `<name>.part`, synced, then renamed: a crash leaves at most a file without a row,
    which the sweep removes. Several replicas of admin share the directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[BlobWriter]:
        writer = _FileWriter(self._directory)
        try:
            await writer.open()
            yield writer
        finally:
            await writer.close()

    async def read(self, name: BlobName) -> AsyncGenerator[bytes, None]:
        with ExitStack() as opened:
            try:
                file = await to_its_end(asyncio.to_thread(_open, self._directory / name, opened))
            except OSError as error:
                raise _missing(name, error) from error
            while piece := await self._read(file):
                yield piece

    async def read_part(self, name: BlobName, first_byte: int, size_bytes: int) -> bytes:
        try:
            return await asyncio.to_thread(_read_part, self._directory / name, first_byte, size_bytes)
        except OSError as error:
            raise _missing(name, error) from error

    async def delete(self, name: BlobName) -> None:
        with _disk("deleted"):
            await asyncio.to_thread((self._directory / name).unlink, missing_ok=True)

    async def names_before(self, moment: float) -> list[BlobName]:
        with _disk("listed"):
            return await asyncio.to_thread(_names_before, self._directory, moment)

    async def _read(self, file: BinaryIO) -> bytes:
        with _disk("read"):
            return await to_its_end(asyncio.to_thread(file.read, PIECE_BYTES))


class NoBlobs:
    """There is no content_dir: files are not kept."""

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[BlobWriter]:
        raise NotPossible("Files are not kept here: admin's content_dir is not set.")
        yield  # an async generator all the same

    async def read(self, name: BlobName) -> AsyncGenerator[bytes, None]:
        raise NotPossible("The bytes of files are not here: admin's content_dir is not set.")
        yield b""

    async def read_part(self, name: BlobName, first_byte: int, size_bytes: int) -> bytes:
        raise NotPossible("The bytes of files are not here: admin's content_dir is not set.")

    async def delete(self, name: BlobName) -> None:
        log.warning("blob is left where it is: content_dir is not set", extra={"action": "blob_left", "blob": name})

    async def names_before(self, moment: float) -> list[BlobName]:
        return []


class _FileWriter:
    def __init__(self, directory: Path) -> None:
        self.name = BlobName(secrets.token_hex(16))
        self._directory = directory
        self._path = directory / self.name
        self._unfinished = directory / (self.name + _UNFINISHED)
        self._file: BinaryIO | None = None
        self._is_kept = False

    async def open(self) -> None:
        await self._do(self._open)

    async def write(self, piece: bytes) -> None:
        await self._do(self._write, piece)

    async def keep(self) -> None:
        await self._do(self._keep)
        self._is_kept = True

    async def close(self) -> None:
        await self._do(self._close)

    async def _do(self, step: Callable[..., None], *given: bytes) -> None:
        with _disk("written"):
            await to_its_end(asyncio.to_thread(step, *given))

    def _open(self) -> None:
        descriptor = os.open(self._unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(descriptor, "wb")

    def _write(self, piece: bytes) -> None:
        assert self._file is not None
        self._file.write(piece)

    def _keep(self) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._unfinished.rename(self._path)
        _sync_directory(self._directory)

    def _close(self) -> None:
        if not self._is_kept:
            self._unfinished.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)
        if self._file is not None:
            self._file.close()


def _open(path: Path, opened: ExitStack) -> BinaryIO:
    return opened.enter_context(path.open("rb"))


def _read_part(path: Path, first_byte: int, size_bytes: int) -> bytes:
    with path.open("rb") as file:
        file.seek(first_byte)
        return file.read(size_bytes)


def _missing(name: BlobName, error: OSError) -> ForebayError:
    log.error("blob is missing", extra={"action": "blob_missing", "blob": name, "why": error.strerror})
    return ForebayError(
        "The bytes of this file are not where they should be; all replicas of admin need the same content_dir."
    )


def _names_before(directory: Path, moment: float) -> list[BlobName]:
    """Only names that are ours: whatever else somebody puts there is not ours to remove."""
    names = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if _OURS.fullmatch(entry.name) and _is_before(entry, moment):
                names.append(BlobName(entry.name))
    return names


def _is_before(entry: os.DirEntry[str], moment: float) -> bool:
    try:
        return entry.stat().st_mtime < moment
    except FileNotFoundError:  # deleted, or renamed, a moment ago
        return False


def _sync_directory(directory: Path) -> None:
    """Makes a rename last over a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk(done: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        log.error("content_dir fails", extra={"action": "blob_failed", "why": str(error)})
        raise Unavailable(f"Files cannot be {done} now: {error.strerror}.") from error
