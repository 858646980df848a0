"""The chain that holds the audit log together: each link is a hash over its entry and the link before, so nothing that was
chained can be changed, taken out or put in between without one that no longer fits. Pure; Postgres makes the links
when an entry is committed (migration 0016), and what is computed here must be the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from forebay.errors import BadInput

FORM = 1
"""What goes into a hash, and how. Another form gets another number."""
BEGINNING = bytes(32)
"""What the first link is chained to."""

_FORM_WORD = b"forebay-audit-1"


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the audit log, as it is hashed."""

    id: int
    at_us: int
    actor: str
    actor_key_id: str
    interface: str
    address: str
    action: str
    subject: str
    before: str | None
    """JSON, as Postgres writes it."""
    after: str | None


@dataclass(frozen=True, slots=True)
class Link:
    seq: int
    """From 1, without gaps."""
    entry_id: int
    form: int
    previous: bytes
    hash: bytes
    entry: Entry | None
    """None: there is no such entry."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A link's number and hash, as somebody wrote them down elsewhere."""

    seq: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash.hex()}"


class Damage(StrEnum):
    CHANGED = "changed"
    REMOVED = "removed"
    INSERTED = "inserted"
    UNKNOWN_FORM = "unknown_form"


@dataclass(frozen=True, slots=True)
class Fault:
    damage: Damage
    seq: int
    """0: it is in no link."""
    entry_id: int
    """0: not known."""
    why: str


def link_hash(seq: int, previous: bytes, entry: Entry) -> bytes:
    """32 bytes: SHA-256 over all of it, each text with its length before it: nothing can move from one to the next."""
    parts = [_FORM_WORD, previous, _int8(seq), _int8(entry.id), _int8(entry.at_us)]
    texts = (entry.actor, entry.actor_key_id, entry.interface, entry.address, entry.action, entry.subject)
    parts += [_field(text) for text in (*texts, entry.before, entry.after)]
    return hashlib.sha256(b"".join(parts)).digest()


class Walk:
    """Along the chain, link by link, from `first` on. `previous`: the hash of the link before; None: that is trusted."""

    def __init__(self, first: int = 1, previous: bytes | None = BEGINNING, anchor: Anchor | None = None) -> None:
        self.expected = first
        self._previous = previous
        self._anchor = anchor

    @property
    def last(self) -> Anchor:
        """The last link that was looked at."""
        return Anchor(self.expected - 1, self._previous or BEGINNING)

    def check(self, links: Iterable[Link]) -> Fault | None:
        """The first that is wrong; nothing after it is looked at."""
        return next((fault for link in links for fault in self._faults(link)), None)

    def end(self, head: Anchor, last: int) -> Fault | None:
        """After the last link up to `last`: whether some are missing there. `head`: the end of the chain, as it is told."""
        if self.expected <= last:
            return Fault(
                Damage.REMOVED, self.expected, 0, f"links {self.expected} to {last} are gone, and their entries"
            )
        if last == head.seq and self._previous not in (None, head.hash):
            return Fault(Damage.CHANGED, last, 0, "the end of the chain is not what was last chained")
        if self._anchor is not None and self._anchor.seq > last:
            return Fault(Damage.REMOVED, self._anchor.seq, 0, f"there is no link {self._anchor.seq} any more")
        return None

    def _faults(self, link: Link) -> Iterator[Fault]:
        seq, entry_id = link.seq, link.entry_id
        if seq != self.expected:
            missing = f"link {self.expected} is gone" if seq - self.expected == 1 else f"links before {seq} are gone"
            yield Fault(Damage.REMOVED, self.expected, 0, missing)
        if link.entry is None:
            yield Fault(Damage.REMOVED, seq, entry_id, "the entry is gone, its link is still there")
        elif link.form != FORM:
            yield Fault(
                Damage.UNKNOWN_FORM,
                seq,
                entry_id,
                f"it is chained in form {link.form}, which is not known here",
            )
        elif link_hash(seq, link.previous, link.entry) != link.hash:
            yield Fault(Damage.CHANGED, seq, entry_id, "the entry is not what was chained")
        elif self._previous is not None and link.previous != self._previous:
            yield Fault(Damage.CHANGED, seq, entry_id, "it is chained to another entry than the one before it")
        elif self._anchor is not None and self._anchor.seq == seq and self._anchor.hash != link.hash:
            yield Fault(
                Damage.CHANGED, seq, entry_id, "the chain up to here was made anew: the anchor has another hash"
            )
        self.expected, self._previous = seq + 1, link.hash


def parse_anchor(text: str) -> Anchor:
    """`1234:<64 hexadecimal digits>`. Raises BadInput."""
    number, _, digits = text.strip().partition(":")
    try:
        anchor = Anchor(int(number), bytes.fromhex(digits))
    except ValueError:
        anchor = Anchor(0, b"")
    if not 0 < anchor.seq < 2**63 or len(anchor.hash) != 32:
        raise BadInput(
            "An anchor is what a check of the audit log ended with: a number, a colon and 64 hexadecimal digits."
        )
    return anchor


def _int8(number: int) -> bytes:
    return number.to_bytes(8, "big", signed=True)


def _field(text: str | None) -> bytes:
    if text is None:
        return (-1).to_bytes(4, "big", signed=True)
    held = text.encode()
    return len(held).to_bytes(4, "big") + held
