"""One batch from its input to its files. It can end anywhere and be taken up again: everything that must last is committed
before it counts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from datetime import datetime

from forebay.errors import ForebayError, NotFound, Unavailable
from forebay.ledger_id import new_ledger_id
from forebay_admin.batches.batch import Batch, BatchError, Ending, Status
from forebay_admin.batches.gateways import TooLong, Unheard, Unsent
from forebay_admin.batches.input_check import InputCheck, body_in
from forebay_admin.batches.line import LONG_BYTES, MESSAGES, Again, Answer, Done, Fault, Stop, judged
from forebay_admin.batches.line_store import (
    StartedLine,
    add_lines,
    finish_line,
    has_open_lines,
    let_line_go,
    line_of,
    start_line,
)
from forebay_admin.batches.means import Means, patiently
from forebay_admin.batches.pace import Pace
from forebay_admin.batches.results import Results, write_results
from forebay_admin.batches.settling import Settling
from forebay_admin.batches.store import enter, forget_lines, lock_batch, tell_progress
from forebay_admin.content.content import BlobName, ContentLimits, Kind, Place
from forebay_admin.content.content_store import put_thing, thing_at
from forebay_admin.keys.keys import KeyState
from forebay_admin.unbroken import to_its_end

log = logging.getLogger(__name__)

_NO_LIMITS = ContentLimits(2**62, 2**62, 2**62)
"""What was paid for is kept, however much its user keeps already."""


class Run:
    def __init__(self, means: Means, batch: Batch) -> None:
        self._means = means
        self._batch = batch
        self._order = batch.order
        self._ours: set[bytes] = set()
        """Ledger ids of the tries that are under way here."""
        self._settling = Settling(means, batch.id, batch.order, self._ours.__contains__)
        self._pace = Pace(means.terms.lines_at_once)
        self._input: BlobName | None = None
        self._changed = asyncio.Event()
        self._is_uncounted = False
        self._told = asyncio.Event()
        self._ending = Ending.COMPLETED
        self._errors: Sequence[BatchError] = ()

    def end(self, ending: Ending, *errors: BatchError) -> None:
        """No more lines are sent, and those that are under way are cut. What was said first counts."""
        if not self._told.is_set():
            self._ending, self._errors = ending, errors
            self._told.set()

    async def run(self) -> None:
        """To its end. Raises Unavailable, and whatever else may pass."""
        batch = self._batch
        if batch.status is Status.VALIDATING:
            batch = await self._validate()
        if batch.status is Status.IN_PROGRESS:
            await self._work_until_told()
            batch = await patiently(self._finalize)
        if batch.status is Status.FINALIZING:
            assert batch.ending is not None
            await self._finish(batch, batch.ending)
        elif batch.status is Status.CANCELLING:
            await self._finish(batch, Ending.CANCELLED)

    # --- before ------------------------------------------------------------------------------------------------------

    async def _validate(self) -> Batch:
        check = InputCheck(self._order.endpoint)
        try:
            blob = await self._find_input()
            async with self._means.checking, aclosing(self._means.blobs.read(blob)) as pieces:
                async for piece in pieces:
                    # On a thread: a piece may end a line of a megabyte.
                    await asyncio.to_thread(check.feed, piece)
                    if check.is_hopeless or self._ending is Ending.CANCELLED:
                        break
            await asyncio.to_thread(check.end)
        except Unavailable:
            raise
        except ForebayError as error:
            check.errors.append(_input_gone(error))
        return await to_its_end(self._enter_work(check))

    async def _enter_work(self, check: InputCheck) -> Batch:
        async with self._means.database.writing() as connection:
            batch = await lock_batch(connection, self._batch.id)
            if batch.status is not Status.VALIDATING:
                return batch
            now = self._means.now()
            if check.errors:
                batch = await enter(connection, batch, Status.FAILED, now, errors=check.errors, ending=Ending.FAILED)
            else:
                await add_lines(connection, batch.id, check.lines)
                counts = type(batch.counts)(total=len(check.lines))
                batch = await enter(connection, batch, Status.IN_PROGRESS, now, counts=counts)
        _log(batch, lines=len(check.lines), errors=len(check.errors))
        return batch

    async def _find_input(self) -> BlobName:
        """Raises NotFound, Unavailable."""
        if self._input is None:
            place = Place(self._order.user_id, Kind.FILE, self._order.input_file_id)
            async with self._means.database.reading() as connection:
                thing = await thing_at(connection, place, self._means.now())
            if thing.blob is None:
                raise NotFound(f"The file {thing.id} has no bytes.")
            self._input = thing.blob.name
        return self._input

    # --- work --------------------------------------------------------------------------------------------------------

    async def _work_until_told(self) -> None:
        work = asyncio.create_task(self._work(), name="batch-work")
        told = asyncio.create_task(self._told.wait(), name="batch-told")
        try:
            await asyncio.wait([work, told], return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            told.cancel()
            await asyncio.wait([work, told])
        if not work.cancelled():
            work.result()

    async def _work(self) -> None:
        """Returns when every line is done."""
        async with asyncio.TaskGroup() as tasks:
            beside = [
                tasks.create_task(self._settle(), name="batch-settling"),
                tasks.create_task(self._tell_progress(), name="batch-progress"),
            ]
            while True:
                await self._room()
                if not self._key_works():
                    return
                line = await self._start()
                if line is not None:
                    tasks.create_task(self._line(line), name="batch-line")
                elif not self._ours and not await patiently(self._has_open_lines):
                    break
                else:
                    await self._change_within(self._means.terms.look_s)
            for task in beside:
                task.cancel()

    async def _room(self) -> None:
        while True:
            wait_s = self._pace.not_before - self._means.clock.monotonic()
            if wait_s <= 0 and len(self._ours) < self._pace.allowed:
                return
            await self._change_within(wait_s if wait_s > 0 else self._means.terms.look_s)

    async def _start(self) -> StartedLine | None:
        """With a turn, which goes back when the line has ended. None when no line waits."""
        user_id = self._order.user_id
        await self._means.turns.take(user_id)
        ledger_id = new_ledger_id(self._means.clock.now())
        self._ours.add(ledger_id)
        started: list[StartedLine | None] = []

        async def start() -> None:
            async with self._means.database.writing() as connection:
                # After a commit whose answer was lost, the same one again: an id is never that of two lines.
                line = await line_of(connection, self._batch.id, ledger_id) if started else None
                started.append(None)
                line = line or await start_line(connection, self._batch.id, ledger_id)
            started.append(line)

        try:
            await patiently(start)
        except BaseException:
            self._ours.discard(ledger_id)
            self._means.turns.give_back(user_id)
            if started and started[-1] is not None:
                await self._give_back(started[-1])
            raise
        if started[-1] is None:
            self._ours.discard(ledger_id)
            self._means.turns.give_back(user_id)
        return started[-1]

    async def _line(self, line: StartedLine) -> None:
        try:
            try:
                body = await self._read(line)
            except asyncio.CancelledError:
                await self._give_back(line)
                raise
            if body is not None:
                await self._try(line, body)
        finally:
            self._ours.discard(line.ledger_id)
            self._means.turns.give_back(self._order.user_id)
            self._changed.set()

    async def _read(self, line: StartedLine) -> bytes | None:
        """The request. None when it cannot be read any more, which ends the batch."""
        try:
            raw = await self._means.blobs.read_part(await patiently(self._find_input), line.first_byte, line.size_bytes)
            return await asyncio.to_thread(body_in, raw) if len(raw) > LONG_BYTES else body_in(raw)
        except ForebayError as error:
            await self._let_go(line, Again(error.message))
            self.end(Ending.FAILED, _input_gone(error))
            return None

    async def _try(self, line: StartedLine, body: bytes) -> None:
        means, began = self._means, self._means.clock.monotonic()
        heard = await means.gateways.send(self._order.endpoint, body, self._order.key_id, line.ledger_id)
        if isinstance(heard, Unheard):
            # It stays started. What became of it the ledger says.
            self._count("unheard")
            self._pace.refused(began, means.clock.monotonic(), None)
            _log_line(line, "line of a batch has no answer", "batch_unheard", heard.why)
            return None
        if isinstance(heard, TooLong):
            return await self._done(line, (Fault.ANSWER_TOO_LONG.value, MESSAGES[Fault.ANSWER_TOO_LONG]))
        if isinstance(heard, Unsent):
            verdict: Again | Done | Stop = Again(heard.why)
        else:
            verdict = judged(heard, line.engine_failures)
        if isinstance(verdict, Done):
            return await self._done(line, verdict.answer)
        if isinstance(verdict, Stop):
            await self._let_go(line, Again(verdict.why))
            return self.end(Ending.FAILED, BatchError(verdict.code, verdict.why))
        await self._let_go(line, verdict)
        self._pace.refused(began, means.clock.monotonic(), verdict.after_s)
        return None

    async def _done(self, line: StartedLine, outcome: Answer | tuple[str, str]) -> None:
        async def finish() -> None:
            async with self._means.database.writing() as connection:
                await finish_line(connection, line, outcome)

        await patiently(finish)
        self._pace.answered()
        self._count("succeeded" if isinstance(outcome, Answer) and outcome.is_success else "failed")
        self._is_uncounted = True

    async def _let_go(self, line: StartedLine, verdict: Again) -> None:
        async def let_go() -> None:
            async with self._means.database.writing() as connection:
                await let_line_go(connection, line, engine_failed=verdict.engine_failed)

        await patiently(let_go)
        self._count("again")
        _log_line(line, "line of a batch is tried again", "batch_again", verdict.why)

    async def _give_back(self, line: StartedLine) -> None:
        """One that was started and not sent, when all ends: else nobody could tell that it was not sent."""
        with suppress(Unavailable):
            async with self._means.database.writing() as connection:
                await let_line_go(connection, line)

    async def _has_open_lines(self) -> bool:
        async with self._means.database.reading() as connection:
            return await has_open_lines(connection, self._batch.id)

    def _key_works(self) -> bool:
        principal = self._means.directory.find(self._order.key_id)
        if principal is None:
            return True  # this replica has not heard of it yet; gateways have, and judge
        if principal.state is KeyState.REVOKED:
            self.end(Ending.FAILED, BatchError("key_revoked", "The API key that this batch was made with was revoked."))
        elif principal.state is KeyState.USER_DISABLED:
            self.end(Ending.FAILED, BatchError("key_revoked", "The user of this batch has been disabled."))
        elif principal.limits.expires_at is not None and self._means.now() >= principal.limits.expires_at:
            self.end(Ending.FAILED, BatchError("key_expired", "The API key that this batch was made with has expired."))
        else:
            return True
        return False

    async def _settle(self) -> None:
        while True:
            with suppress(Unavailable):
                if await self._settling.look():
                    self._is_uncounted = True
                    self._changed.set()
            await asyncio.sleep(self._means.terms.look_s)

    async def _tell_progress(self) -> None:
        while True:
            await asyncio.sleep(self._means.terms.look_s)
            if self._is_uncounted:
                self._is_uncounted = False
                with suppress(Unavailable):
                    async with self._means.database.writing() as connection:
                        await tell_progress(connection, self._batch.id)

    async def _change_within(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()

    def _count(self, result: str) -> None:
        self._means.lines.child(result).value += 1

    # --- the end -----------------------------------------------------------------------------------------------------

    async def _finalize(self) -> Batch:
        async with self._means.database.writing() as connection:
            batch = await lock_batch(connection, self._batch.id)
            if batch.status is not Status.IN_PROGRESS or self._ending is Ending.CANCELLED:
                return batch
            return await enter(
                connection,
                batch,
                Status.FINALIZING,
                self._means.now(),
                ending=self._ending,
                errors=[*batch.errors, *self._errors],
            )

    async def _finish(self, batch: Batch, ending: Ending) -> None:
        async with AsyncExitStack() as stack:
            now = self._means.now()
            results = await write_results(stack, self._means.database, self._means.blobs, batch, ending, now)
            finished = await patiently(lambda: self._enter_end(batch, ending, results, now))
        _log(finished, succeeded=finished.counts.completed, failed=finished.counts.failed)

    async def _enter_end(self, batch: Batch, ending: Ending, results: Results, now: datetime) -> Batch:
        async with self._means.database.writing() as connection:
            found = await lock_batch(connection, batch.id)
            if found.is_finished:
                return found
            for file in (results.output, results.errors):
                if file is not None:
                    await put_thing(connection, file, _NO_LIMITS, now)
            await forget_lines(connection, batch.id)
            return await enter(
                connection,
                found,
                ending.status,
                now,
                counts=results.counts,
                output_file_id=results.output.id if results.output is not None else None,
                error_file_id=results.errors.id if results.errors is not None else None,
            )


def _input_gone(error: ForebayError) -> BatchError:
    return BatchError(
        "input_file_unavailable", f"The input file cannot be read: {error.message}", param="input_file_id"
    )


def _log(batch: Batch, **fields: int) -> None:
    log.info(
        "batch is %s",
        batch.status,
        extra={"action": f"batch_{batch.status}", "batch": batch.id, "user": batch.order.user_id, **fields},
    )


def _log_line(line: StartedLine, what: str, action: str, why: str) -> None:
    log.info(what, extra={"action": action, "batch": line.batch_id, "line": line.line, "why": why})
