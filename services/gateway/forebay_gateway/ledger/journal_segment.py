"""One file of the journal: records appended to mapped memory, and read back from whatever a dead process left.

A record is `kind (1) · length (4) · CRC-32 (4) · ledger id (16) · payload`, the CRC over kind, id and payload. Zeros end a
segment. What lies in mapped memory survives the process, since the kernel has it; it does not survive the power."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from zlib import crc32

_HEAD = struct.Struct("<BII16s")
OVERHEAD = _HEAD.size


class Kind(IntEnum):
    OPEN = 1
    CLOSE = 2
    DONE = 3
    """The payload is a row of ledger ids, 16 bytes each, whose closings are stored elsewhere."""


_KINDS = frozenset(Kind)


@dataclass(frozen=True, slots=True)
class Record:
    kind: Kind
    ledger_id: bytes
    payload: bytes


class Segment:
    """A segment that is written. Its blocks are allocated before it is mapped: writing to a mapped hole on a full disk would
    kill the process."""

    def __init__(self, path: Path, size: int) -> None:
        """Blocking, about a millisecond. Raises OSError, such as on a full disk."""
        self.path = path
        self.size = size
        self.used = 0
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
            self._memory = mmap.mmap(descriptor, size)
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(descriptor)

    def append(self, kind: Kind, ledger_id: bytes, payload: bytes) -> bool:
        """A copy into memory; no system call. False: it does not fit."""
        framed = frame(kind, ledger_id, payload)
        end = self.used + len(framed)
        if end > self.size:
            return False
        self._memory[self.used : end] = framed
        self.used = end
        return True

    def close(self) -> None:
        self._memory.close()


def frame(kind: Kind, ledger_id: bytes, payload: bytes) -> bytes:
    return _HEAD.pack(kind, len(payload), crc32(payload, crc32(ledger_id, kind)), ledger_id) + payload


def read_records(content: bytes) -> Iterator[Record]:
    """The whole records from the beginning; stops at the first that is torn, changed or not there."""
    at = 0
    while at + OVERHEAD <= len(content):
        kind, length, checksum, ledger_id = _HEAD.unpack_from(content, at)
        begin, end = at + OVERHEAD, at + OVERHEAD + length
        if kind not in _KINDS or end > len(content):
            return
        payload = content[begin:end]
        if crc32(payload, crc32(ledger_id, kind)) != checksum:
            return
        yield Record(Kind(kind), ledger_id, payload)
        at = end
