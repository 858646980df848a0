"""The ledger's name for a request: a UUIDv7, whose time also says on which day its row lies."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime


def new_ledger_id(now: float) -> bytes:
    """16 bytes: 48 bits of milliseconds, version 7, 74 random bits (RFC 9562 §5.7)."""
    random = bytearray(os.urandom(10))
    random[0] = 0x70 | random[0] & 0x0F
    random[2] = 0x80 | random[2] & 0x3F
    return int(now * 1000).to_bytes(6) + bytes(random)


def time_of(ledger_id: bytes) -> float:
    """Seconds since the epoch at which the id was made."""
    return int.from_bytes(ledger_id[:6]) / 1000


def day_of(ledger_id: bytes) -> date:
    """The UTC day of the row, unique across midnight since it does not depend on when the row is written."""
    return datetime.fromtimestamp(time_of(ledger_id), UTC).date()
