"""Files that are whole or not there, and those with secrets their owner's alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

PRIVATE, PUBLIC = 0o600, 0o644


def write_private(path: Path, content: bytes) -> None:
    """Mode 600 from the first byte on, and by rename, so that nobody reads half of it."""
    write_whole(path, content, PRIVATE)


def write_whole(path: Path, content: bytes, mode: int) -> None:
    """By rename, with `mode` from the first byte on. Folders that are missing are made, closed to others."""
    with _instead_of(path, mode) as file:
        file.write(content)


def replace_whole(path: Path, content: bytes, mode: int) -> None:
    """The same, but that owner, group and mode of a file that is there stay as they are, as far as we may: whoever was let
    read the one before reads this one too. It is on the disk when this returns."""
    with _instead_of(path, PRIVATE) as file:
        file.write(content)
        os.fchmod(file.fileno(), _taken_over(path, file.fileno()) or mode)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _instead_of(path: Path, mode: int) -> Iterator[BinaryIO]:
    """A file beside it, which takes its place once it is written."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        yield file
    fresh.replace(path)


def _taken_over(path: Path, descriptor: int) -> int | None:
    """The mode of what is there, once the new one is its group's too; None when there is nothing, or that cannot be."""
    try:
        before = path.stat()
    except FileNotFoundError:
        return None
    with suppress(PermissionError):  # who is not root gives files to groups of their own, and to nobody
        os.fchown(descriptor, before.st_uid, before.st_gid)
    return stat.S_IMODE(before.st_mode) if os.fstat(descriptor).st_gid == before.st_gid else None
