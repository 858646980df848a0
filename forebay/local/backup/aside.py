"""What is copied before its length is known, and waits on the disk until it is: in a file without a name, under a key that
this process alone has and forgets. So nobody reads it there, neither meanwhile nor later from the disk itself."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from forebay.local.backup.seal import MAGIC, OpeningReader, SealingWriter

_KEY_BYTES = 32


class Aside:
    """Made by `set_aside`. Written first, then read once."""

    def __init__(self, file: BinaryIO) -> None:
        self.size = 0
        """Bytes that were written."""
        self._file = file
        self._key = os.urandom(_KEY_BYTES)
        self._sealing = SealingWriter(file, self._key)

    def write(self, content: bytes) -> None:
        self._sealing.write(content)
        self.size += len(content)

    def read_back(self) -> OpeningReader:
        """All of it; no more is written."""
        self._sealing.close()
        self._file.seek(len(MAGIC))
        return OpeningReader(self._file, self._key)


@contextmanager
def set_aside(folder: Path) -> Iterator[Aside]:
    """On the disk of `folder`, which needs the room."""
    with tempfile.TemporaryFile(dir=folder) as file:
        yield Aside(file)
