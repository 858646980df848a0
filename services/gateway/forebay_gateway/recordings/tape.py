"""What is kept of one request: which policy says so, and the bytes as they pass, so many and no more. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from forebay_gateway.callers.key_terms import AuditPolicy, KeyTerms

_THOUSAND = 1000


class Room:
    """Of all tapes together, in this process's memory."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self.held_bytes = 0

    def take(self, size: int) -> bool:
        if self.held_bytes + size > self._most:
            return False
        self.held_bytes += size
        return True

    def give_back(self, size: int) -> None:
        self.held_bytes -= size


class Tape:
    """Takes the first `most_bytes` of what passes."""

    def __init__(self, room: Room, most_bytes: int) -> None:
        self._room = room
        self._most = most_bytes
        self._pieces: list[bytes] = []
        self._kept = 0
        self.size = 0
        """Bytes that passed, kept or not."""

    @property
    def is_cut(self) -> bool:
        return self._kept < self.size

    def add(self, piece: bytes) -> None:
        if not self.is_cut:
            part = piece[: self._most - self._kept]
            if part and self._room.take(len(part)):
                self._pieces.append(part)
                self._kept += len(part)
        self.size += len(piece)

    def taken(self) -> bytes:
        return b"".join(self._pieces)

    def wipe(self) -> None:
        self._pieces.clear()
        self._room.give_back(self._kept)
        self._kept = 0


@dataclass(slots=True)
class Recording:
    policy: AuditPolicy
    """METADATA, FULL or SAMPLED."""
    address: str
    request: Tape
    answer: Tape
    body_bytes: int = field(default=0)
    """Of a request whose body is not kept as it came."""


def recorded_by(terms: KeyTerms | None, ledger_id: bytes) -> AuditPolicy | None:
    """By which policy this request is kept; None: nothing of it is. Which are the samples is told by their ids, of which the
    end is random."""
    if terms is None or terms.audit is None or terms.audit is AuditPolicy.OFF:
        return None
    if terms.audit is AuditPolicy.SAMPLED and int.from_bytes(ledger_id[-4:]) % _THOUSAND >= terms.audit_permille:
        return None
    return terms.audit
