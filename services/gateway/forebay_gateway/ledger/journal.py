"""The journal: each request's record from its opening until the bus has it. On disk, bounded, no system call per request.

A request is opened once and closed once; a closed one waits to be published and is then acknowledged. A new process finds
what its predecessor left: closed records that were not published, and open ones, whose requests died with it. What a
payload says is not known here."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from forebay.errors import CannotStart
from forebay_gateway.ledger.journal_segment import OVERHEAD, Kind, Segment, read_records
from forebay_gateway.refused import JournalFull

log = logging.getLogger(__name__)

MOST_PAYLOAD = 4096
"""Bytes. A record is a few hundred; longer ones are cut by who makes them."""
_MOST_DONE = 250  # ledger ids in one record


@dataclass(slots=True)
class _Kept:
    """A segment file and the requests whose newest record lies in it."""

    path: Path
    size: int
    live: set[bytes] = field(default_factory=set)
    segment: Segment | None = None
    """None for one that a predecessor wrote."""


@dataclass(slots=True)
class _Request:
    kept: _Kept | None
    """Where its newest record lies; None when the disk was too full for it."""
    payload: bytes
    is_closed: bool


class Journal:
    """Use `open_journal`. Not for several threads."""

    def __init__(self, directory: Path, segment_bytes: int, most_segments: int, predecessors: Sequence[Path]) -> None:
        self._directory = directory
        self._segment_bytes = max(segment_bytes, 4 * (MOST_PAYLOAD + OVERHEAD))
        self._most_segments = max(2, most_segments)
        self._segments: deque[_Kept] = deque()
        self._requests: dict[bytes, _Request] = {}
        self._unpublished: OrderedDict[bytes, bytes] = OrderedDict()
        self._open_count = 0
        self._number = 0
        self._spare: Segment | None = None
        self._preparing: asyncio.Task[None] | None = None
        self.closed = asyncio.Event()
        """Set while there is something to publish."""
        self._adopt(predecessors)
        self._start_segment()

    # --- the life of a record ---------------------------------------------------------------------------------------

    def open(self, ledger_id: bytes, payload: bytes) -> None:
        """Raises JournalFull. Room for the closing of every open request is kept free."""
        room = MOST_PAYLOAD + OVERHEAD
        if self._free_bytes() < (self._open_count + 2) * room:
            raise JournalFull
        kept = self._append(Kind.OPEN, ledger_id, payload)
        if kept is None:
            raise JournalFull("The disk that holds the journal is full. Free some space there, then try again.")
        self._requests[ledger_id] = _Request(kept, payload, is_closed=False)
        self._open_count += 1

    def note(self, ledger_id: bytes, payload: bytes) -> bool:
        """The record of a request that is over before it was opened. False when there is no room: what floods a gateway
        while the bus is away must not fill its disk."""
        if self._free_bytes() < (self._open_count + 1) * (MOST_PAYLOAD + OVERHEAD):
            return False
        self.close(ledger_id, payload)
        return True

    def close(self, ledger_id: bytes, payload: bytes) -> None:
        """Of an opened request. Never refused: on a full disk the record lives in memory alone until it is published."""
        known = self._requests.get(ledger_id)
        kept = self._append(Kind.CLOSE, ledger_id, payload)
        if kept is None:
            log.error("journal cannot grow; a record is in memory only", extra={"action": "journal_full"})
        if known is None:
            self._requests[ledger_id] = _Request(kept, payload, is_closed=True)
        else:
            self._open_count -= not known.is_closed
            if known.kept is not None and known.kept is not kept:
                known.kept.live.discard(ledger_id)
            known.kept, known.payload, known.is_closed = kept, payload, True
        self._unpublished[ledger_id] = payload
        if len(self._unpublished) == 1:
            self.closed.set()

    def oldest(self, most: int, most_bytes: int) -> list[tuple[bytes, bytes]]:
        """(ledger id, payload) of closed records, oldest first; at least one if there is any."""
        batch: list[tuple[bytes, bytes]] = []
        size = 0
        for ledger_id, payload in self._unpublished.items():
            size += len(payload) + 8
            if batch and (len(batch) >= most or size > most_bytes):
                break
            batch.append((ledger_id, payload))
        return batch

    def acknowledge(self, ledger_ids: Sequence[bytes]) -> None:
        """They are stored elsewhere: forget them, and delete the files that nobody needs any more."""
        self._forget(ledger_ids)
        if not self._unpublished:
            self.closed.clear()
        self._drop_finished()
        self._note_done(ledger_ids)

    # --- numbers ----------------------------------------------------------------------------------------------------

    @property
    def unpublished(self) -> int:
        return len(self._unpublished)

    @property
    def used_bytes(self) -> int:
        return sum(kept.segment.used if kept.segment else kept.size for kept in self._segments)

    def open_requests(self) -> list[tuple[bytes, bytes]]:
        """(ledger id, payload) of requests that were opened and not closed. At the start: those of a dead process."""
        return [(i, r.payload) for i, r in self._requests.items() if not r.is_closed]

    # --- files ------------------------------------------------------------------------------------------------------

    def _adopt(self, predecessors: Sequence[Path]) -> None:
        for path in predecessors:
            content = path.read_bytes()
            kept = _Kept(path, len(content))
            for record in read_records(content):
                if record.kind is Kind.DONE:
                    self._forget([record.payload[at : at + 16] for at in range(0, len(record.payload), 16)])
                    continue
                known = self._requests.get(record.ledger_id)
                if known is not None and known.kept is not None:
                    known.kept.live.discard(record.ledger_id)
                is_closed = record.kind is Kind.CLOSE
                if known is not None and known.is_closed and not is_closed:
                    continue
                self._requests[record.ledger_id] = _Request(kept, record.payload, is_closed)
                kept.live.add(record.ledger_id)
            self._segments.append(kept)
            self._number = max(self._number, int(path.stem))
        for ledger_id, request in self._requests.items():
            if request.is_closed:
                self._unpublished[ledger_id] = request.payload
            else:
                self._open_count += 1
        if self._unpublished:
            self.closed.set()
        self._drop_finished()

    def _forget(self, ledger_ids: Iterable[bytes]) -> None:
        for ledger_id in ledger_ids:
            self._unpublished.pop(ledger_id, None)
            request = self._requests.pop(ledger_id, None)
            if request is not None and request.kept is not None:
                request.kept.live.discard(ledger_id)

    def _note_done(self, ledger_ids: Sequence[bytes]) -> None:
        """Only where it needs no new file: without it a successor publishes them again, and the ledger knows them."""
        current = self._segments[-1].segment
        for begin in range(0, len(ledger_ids), _MOST_DONE):
            done = b"".join(ledger_ids[begin : begin + _MOST_DONE])
            if current is not None:
                current.append(Kind.DONE, bytes(16), done)

    def _append(self, kind: Kind, ledger_id: bytes, payload: bytes) -> _Kept | None:
        if len(payload) > MOST_PAYLOAD:
            raise ValueError(f"a journal record of {len(payload)} bytes")
        current = self._segments[-1] if self._segments else None
        segment = current.segment if current is not None else None
        if current is None or segment is None or not segment.append(kind, ledger_id, payload):
            try:
                current = self._start_segment()
            except OSError as error:
                log.error("journal segment", extra={"action": "journal_segment", "error": str(error)})
                return None
            segment = current.segment
            assert segment is not None
            segment.append(kind, ledger_id, payload)
        current.live.add(ledger_id)
        if segment.used * 2 > segment.size:
            self._prepare_spare()
        return current

    def _start_segment(self) -> _Kept:
        segment, self._spare = self._spare, None
        if segment is None:
            segment = Segment(self._next_path(), self._segment_bytes)
        if self._segments and self._segments[-1].segment is not None:
            self._segments[-1].segment.close()
        kept = _Kept(segment.path, segment.size, segment=segment)
        self._segments.append(kept)
        self._carry_forward()
        self._drop_finished()
        return kept

    def _prepare_spare(self) -> None:
        """The next file is made in a thread while this one still has room, so that a request never waits for the disk."""
        if self._spare is None and self._preparing is None:
            path, size = self._next_path(), self._segment_bytes
            number = self._number

            async def prepare() -> None:
                try:
                    made = await asyncio.to_thread(Segment, path, size)
                except OSError as error:
                    log.warning("journal segment", extra={"action": "journal_segment", "error": str(error)})
                else:
                    if number == self._number:
                        self._spare = made
                    else:  # too late: a younger file is in use, and files are read back in the order of their names
                        made.close()
                        made.path.unlink()
                finally:
                    self._preparing = None

            try:
                self._preparing = asyncio.get_running_loop().create_task(prepare(), name="journal-segment")
            except RuntimeError:
                return  # no loop: the file is made when it is needed

    def _next_path(self) -> Path:
        self._number += 1
        return self._directory / f"{self._number:010}.segment"

    def _carry_forward(self) -> None:
        """A long request must not hold on to the file in which it began, and to all that came after: its opening is written
        again into the newest file."""
        if len(self._segments) < 3:
            return
        oldest, newest = self._segments[0], self._segments[-1]
        assert newest.segment is not None
        moving = [i for i in oldest.live if not self._requests[i].is_closed]
        if len(moving) < len(oldest.live):
            return  # something in it waits to be published anyway
        for ledger_id in moving:
            request = self._requests[ledger_id]
            if newest.segment.size - newest.segment.used < newest.segment.size // 2:
                return
            newest.segment.append(Kind.OPEN, ledger_id, request.payload)
            oldest.live.discard(ledger_id)
            newest.live.add(ledger_id)
            request.kept = newest

    def _drop_finished(self) -> None:
        """From the oldest on, so that a closing never goes before its opening."""
        while len(self._segments) > 1 and not self._segments[0].live:
            kept = self._segments.popleft()
            kept.path.unlink(missing_ok=True)

    def _free_bytes(self) -> int:
        current = self._segments[-1].segment if self._segments else None
        rest = current.size - current.used - MOST_PAYLOAD if current is not None else 0
        # The end of each file is wasted by at most one record.
        usable = self._segment_bytes - MOST_PAYLOAD - OVERHEAD
        to_come = self._most_segments - len(self._segments)
        return (rest if rest > 0 else 0) + (to_come * usable if to_come > 0 else 0)

    async def leave(self) -> None:
        if self._preparing is not None:
            await asyncio.wait([self._preparing])
        if self._spare is not None:
            self._spare.close()
            self._spare.path.unlink(missing_ok=True)
        for kept in self._segments:
            if kept.segment is not None and kept is self._segments[-1]:
                kept.segment.close()
        if not self._requests:
            for kept in self._segments:
                kept.path.unlink(missing_ok=True)


@contextmanager
def hold_directory(directory: Path) -> Iterator[None]:
    """The journal's directory, made if missing, for this process alone. Blocking. Raises CannotStart."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise CannotStart(f"The journal directory {directory} cannot be used: {error.strerror}.") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CannotStart(
                f"Another gateway uses the journal directory {directory}; give each its own (journal_dir)."
            ) from error
        yield
    finally:
        os.close(descriptor)


def open_journal(directory: Path, segment_bytes: int, most_segments: int) -> Journal:
    """In a directory that is held. Blocking: reads what a predecessor left. Raises CannotStart."""
    predecessors = sorted(directory.glob("*.segment"))
    try:
        return Journal(directory, segment_bytes, most_segments, predecessors)
    except OSError as error:
        raise CannotStart(f"The journal in {directory} cannot be written: {error.strerror}.") from error


def next_generation(directory: Path, now: float) -> int:
    """The start counter of the gateway that uses this directory: read, raised and stored for good. Blocking.

    An empty directory may have taken the place of a lost one, and the scheduler sends away whoever counts lower than before.
    So counting begins at `now`, in seconds since the epoch, where no counter that goes up by one can have come."""
    path, new = directory / "generation", directory / "generation.new"
    try:
        last = int(path.read_text())
    except FileNotFoundError:
        last = int(now)
    except ValueError as error:
        raise CannotStart(f"{path} holds no number. Write the gateway's last start counter into it.") from error
    with new.open("w") as file:
        file.write(f"{last + 1}\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return last + 1


Lost = Callable[[bytes], bytes]
"""From the payload of an opened record to that of its closing as lost."""


def close_lost(journal: Journal, lost: Lost) -> int:
    """Closes what a dead process left open; gives how many."""
    left = journal.open_requests()
    for ledger_id, payload in left:
        journal.close(ledger_id, lost(payload))
    return len(left)
