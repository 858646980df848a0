"""Secrets that are made once and kept: one file each, readable by its owner alone, whole or not there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path


def keep_secret(path: Path, make: Callable[[], str] = lambda: secrets.token_hex(32)) -> str:
    """The secret in `path`, made now if there is none. 256 random bits unless `make` says otherwise."""
    if not path.exists():
        write_private(path, make().encode() + b"\n")
    return path.read_text().strip()


def write_private(path: Path, content: bytes) -> None:
    """Mode 600 from the first byte on, and by rename, so that nobody reads half of it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    fresh.replace(path)
