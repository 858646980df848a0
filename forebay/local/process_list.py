"""Which process is which part, kept in a file for whoever looks after them from outside."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

from forebay.local.secret_files import write_private
from forebay.local.supervised import Supervised

_LOOK_EVERY_S = 0.1


class ProcessList:
    """Writes `file` when entered and whenever a part begins, ends or runs under another number; removes it when left.

    `parts` may grow meanwhile."""

    def __init__(self, file: Path, parts: Mapping[str, Supervised]) -> None:
        self._file = file
        self._parts = parts
        self._written: dict[str, int] | None = None

    async def __aenter__(self) -> ProcessList:
        self._write()
        self._following = asyncio.create_task(self._follow(), name="process list")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._following.cancel()
        await asyncio.wait([self._following])
        self._file.unlink(missing_ok=True)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            self._write()

    def _write(self) -> None:
        now = {name: part.pid for name, part in self._parts.items()}
        running = {name: pid for name, pid in now.items() if pid is not None}
        if running != self._written:
            write_private(self._file, json.dumps(running, indent=1).encode() + b"\n")
            self._written = running
