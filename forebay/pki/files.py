"""Files that are whole or not there, and those with secrets their owner's alone."""

from __future__ import annotations

import os
from pathlib import Path

PRIVATE, PUBLIC = 0o600, 0o644


def write_private(path: Path, content: bytes) -> None:
    """Mode 600 from the first byte on, and by rename, so that nobody reads half of it."""
    write_whole(path, content, PRIVATE)


def write_whole(path: Path, content: bytes, mode: int) -> None:
    """By rename, with `mode` from the first byte on. Folders that are missing are made, closed to others."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    fresh.replace(path)
