"""What request bodies may take while their answers have not begun: so much memory of the process, then so much disk, and no
more.

A body for which there is no memory lies in a file without a name, which goes with the process that holds it. Nothing of it
is in memory while its request waits for a slot; a long one that waits keeps its bytes and not what was made of them."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol

from forebay.errors import Refusal
from forebay_gateway.refused import Refused

log = logging.getLogger(__name__)

_LONG = 64 << 10
"""Bytes from which on it is worth the while to put a request away."""
_PATIENCE_S = 0.1
"""Who gets a slot at once is not put away, while there is memory."""
_CROWDED = 0.25
"""The share of the memory from which on there is little: what is made of a body may take several times as much."""
_MOST_AT_ONCE = 4
"""So many bodies that lie on the disk are in memory at once, to be read for the first time."""


class Restable(Protocol):
    """A request that can be put away while it waits."""

    @property
    def can_rest(self) -> bool: ...
    def put_away(self) -> bytes | None:
        """What it was asked with, which it has no more until it is brought back. None: it has it still, since that cannot be
        written."""
        ...

    def bring_back(self, kept: bytes) -> None: ...


class BodyBudget:
    """Of one process."""

    def __init__(self, most_bytes: int, most_spooled_bytes: int = 0, directory: Path | None = None) -> None:
        """`directory`: where bodies are spooled; None: the system's, for temporary files."""
        self.most_bytes, self._most_spooled_bytes = most_bytes, most_spooled_bytes
        self._directory = directory
        self.held_bytes = 0
        self.spooled_bytes = 0
        self.turns = asyncio.Semaphore(_MOST_AT_ONCE)

    def hold(self) -> HeldBody:
        return HeldBody(self)

    @property
    def is_crowded(self) -> bool:
        return self.held_bytes > _CROWDED * self.most_bytes

    def has_room(self, size: int) -> bool:
        return self.held_bytes + size <= self.most_bytes

    def take(self, size: int) -> None:
        if not self.has_room(size):
            raise _no_room("memory allows")
        self.held_bytes += size

    def take_disk(self, size: int) -> None:
        if self.spooled_bytes + size > self._most_spooled_bytes:
            raise _no_room("memory and disk allow")
        self.spooled_bytes += size

    async def open_file(self) -> IO[bytes]:
        """Nobody else sees it, and nothing is left of it when it is closed, however that happens."""
        try:
            return await asyncio.to_thread(tempfile.TemporaryFile, buffering=0, dir=self._directory)
        except OSError as error:
            log.error("no file for a body", extra={"action": "spool", "error": repr(error)})
            raise _no_room("memory allows") from error


class HeldBody:
    """One request's share, and its bytes where they are on the disk."""

    _size = 0
    _file: IO[bytes] | None = None
    _file_size = 0
    _file_work: asyncio.Future[bytes | None] | None = None
    """What a thread does with it."""
    _given: bytes | None = None
    """What lies there, until its request is put away."""
    _has_turn = False

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._pieces: list[bytes] = []

    @property
    def is_spooled(self) -> bool:
        return self._file is not None

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return self._size

    @property
    def is_crowded(self) -> bool:
        return self._budget.is_crowded

    @property
    def stays_in_memory(self) -> bool:
        """Nothing would come of putting its request away."""
        return self._file is None and self._size < _LONG

    def grow(self, size: int) -> None:
        """In memory. Raises Refused when the budget is spent."""
        self._budget.take(size)
        self._size += size

    def into_memory(self) -> None:
        """What lies on the disk counts as memory from now on, since its request does something with it that takes time.
        Raises Refused when there is no room."""
        if self._file is not None:
            self.grow(self._file_size)
            self._close_file()

    def weigh(self, size: int) -> None:
        """So much it takes in memory, where that is more than what came: beyond the budget too, since it is there."""
        more = max(0, size - self._size)
        self._size += more
        self._budget.held_bytes += more

    def take_whole(self, body: bytes) -> bool:
        """All of it at once, and nothing of it here: it is somebody's already. False: there is no memory for it."""
        budget, size = self._budget, len(body)
        if budget.held_bytes + size > budget.most_bytes:
            return False
        budget.held_bytes += size
        self._size += size
        return True

    # --- as it comes ------------------------------------------------------------------------------------------------

    async def add(self, piece: bytes) -> None:
        """Raises Refused when both budgets are spent, or the disk is full."""
        size, budget = len(piece), self._budget
        if self._file is None and budget.has_room(size):
            budget.held_bytes += size
            self._size += size
            self._pieces.append(piece)
            return
        if self._file is None:
            self._file = await self._budget.open_file()
            before, self._pieces = b"".join(self._pieces), []
            self._shrink()
            await self._append(before)
        await self._append(piece)

    async def whole(self) -> bytes:
        """All that was added; to be asked for once. Of those on the disk few are given at a time, until each is at rest or
        released."""
        if self._file is None:
            pieces, self._pieces = self._pieces, []
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        await self._budget.turns.acquire()
        self._has_turn = True
        self._given = await self._read_file()
        return self._given

    # --- while it waits ---------------------------------------------------------------------------------------------

    def at_rest(self, request: Restable) -> AbstractAsyncContextManager[None]:
        """Within, the request may have been put away, and what it was asked with must not be looked at. Raises Refused when
        its bytes are on the disk and it cannot stay there."""
        return _Rest(self, request)

    async def to_disk(self, kept: bytes) -> None:
        """Instead of what lies there. Raises OSError, Refused."""
        assert self._file is not None
        self._budget.take_disk(max(0, len(kept) - self._file_size))
        self._budget.spooled_bytes -= max(0, self._file_size - len(kept))
        self._file_size = len(kept)
        given, self._given = self._given, None
        if kept is not given:
            await self._work(_rewrite, kept)
        self.end_turn()

    async def from_disk(self) -> bytes:
        """It is in memory from now on, also beyond the budget: those that have a slot are few."""
        kept = await self._read_file()
        self.lift(len(kept))
        return kept

    def lift(self, size: int | None = None) -> None:
        """It is in memory from now on. `size`: in bytes, where it is not what lies on the disk."""
        size = self._file_size if size is None else size
        self._close_file()
        self._size += size
        self._budget.held_bytes += size

    def end_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._budget.turns.release()

    # --- the end ----------------------------------------------------------------------------------------------------

    def release(self) -> None:
        """May be called again."""
        self._pieces = []
        size, self._size = self._size, 0
        self._budget.held_bytes -= size
        if self._file is not None or self._has_turn:
            self._close_file()

    def _shrink(self) -> None:
        self._budget.held_bytes -= self._size
        self._size = 0

    def _close_file(self) -> None:
        self.end_turn()
        self._given = None
        if self._file is not None:
            file, self._file = self._file, None
            if self._file_work is None or self._file_work.done():
                file.close()
            else:  # not under a thread that works on it: its number could be another file's by then
                self._file_work.add_done_callback(lambda work: _close_after(work, file))
            self._budget.spooled_bytes -= self._file_size
            self._file_size = 0

    async def _append(self, piece: bytes) -> None:
        assert self._file is not None
        self._budget.take_disk(len(piece))
        self._file_size += len(piece)
        try:
            await self._work(_write, piece)
        except OSError as error:
            log.error("a body cannot be spooled", extra={"action": "spool", "error": repr(error)})
            raise _no_room("memory and disk allow") from error

    async def _read_file(self) -> bytes:
        kept = await self._work(_read)
        assert kept is not None
        return kept

    async def _work(self, step: Callable[..., bytes | None], *given: bytes) -> bytes | None:
        """In a thread, to its end also when nobody waits for it any more."""
        assert self._file is not None
        self._file_work = asyncio.get_running_loop().run_in_executor(None, step, self._file, *given)
        done = await asyncio.shield(self._file_work)
        self._file_work = None  # it has what was read
        return done


class _Rest:
    """One wait."""

    def __init__(self, held: HeldBody, request: Restable) -> None:
        self._held, self._request = held, request
        self._alarm: asyncio.TimerHandle | None = None
        self._laying: asyncio.Task[None] | None = None
        self._has_begun = self._is_on_disk = False
        self._kept: bytes | None = None
        """In memory."""

    async def __aenter__(self) -> None:
        if not self._request.can_rest:
            self._held.into_memory()
        if self._held.is_spooled:
            self._laying = asyncio.create_task(self._lay_down(), name="spool")
        elif self._held.size >= _LONG and self._request.can_rest:
            if self._held.is_crowded:
                self._put_away()
            else:
                self._alarm = asyncio.get_running_loop().call_later(_PATIENCE_S, self._put_away)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, asyncio.CancelledError):
            self._give_up()  # nobody asks with it any more
        else:
            await self._end()  # also after an error: another model may be asked for with the same words

    async def _end(self) -> None:
        if self._laying is not None:
            if self._has_begun:
                await self._laying
            else:  # its slot was there at once
                self._laying.cancel()
                self._held.lift()
        if self._alarm is not None:
            self._alarm.cancel()
        if self._kept is not None:
            self._request.bring_back(self._kept)
        elif self._is_on_disk:
            self._request.bring_back(await self._held.from_disk())

    def _give_up(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        if self._laying is not None:
            self._laying.cancel()

    def _put_away(self) -> None:
        self._kept = self._request.put_away()
        if self._kept is not None:
            self._held.weigh(len(self._kept))

    async def _lay_down(self) -> None:
        self._has_begun = True
        kept = self._kept = self._request.put_away()
        try:
            if kept is not None:
                await self._held.to_disk(kept)
        except (OSError, Refused) as error:
            log.error("a request stays in memory", extra={"action": "spool", "error": repr(error)})
        else:
            self._kept, self._is_on_disk = None, kept is not None
        if not self._is_on_disk:
            self._held.lift()


def _write(file: IO[bytes], piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        written = file.write(view)
        view = view[written:]


def _rewrite(file: IO[bytes], kept: bytes) -> None:
    file.seek(0)
    file.truncate()
    _write(file, kept)


def _close_after(work: asyncio.Future[bytes | None], file: IO[bytes]) -> None:
    file.close()
    if not work.cancelled():
        work.exception()  # nobody is left whom it concerns


def _read(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def _no_room(allowed_by: str) -> Refused:
    return Refused(
        Refusal.QUEUE_FULL,
        f"This gateway holds as many waiting requests as its {allowed_by}. Try again in a moment.",
        retry_after_s=2.0,
    )
