"""Secrets that are made once and kept: one file each, readable by its owner alone, whole or not there."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from forebay.pki.files import write_private

__all__ = ["keep_secret", "write_private"]


def keep_secret(path: Path, make: Callable[[], str] = lambda: secrets.token_hex(32)) -> str:
    """The secret in `path`, made now if there is none. 256 random bits unless `make` says otherwise."""
    if not path.exists():
        write_private(path, make().encode() + b"\n")
    return path.read_text().strip()
