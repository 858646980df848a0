"""Runs all batches, on the one replica of admin that may: takes them up, tells them when to end, and forgets old ones."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from datetime import timedelta

from sqlalchemy.exc import DBAPIError

from forebay.errors import Unavailable
from forebay.metrics import Metrics
from forebay_admin.batches.batch import Batch, Ending, Status
from forebay_admin.batches.lock import Holder, RunnerLock
from forebay_admin.batches.means import Means
from forebay_admin.batches.run import Run
from forebay_admin.batches.store import remove_finished, unfinished_batches

log = logging.getLogger(__name__)

KEPT = timedelta(days=30)
"""How long a batch is told of after it was made, if it has ended; its files have times of their own."""

_AT_ONCE_PER_USER = 4
_RETRY_S = 5.0
_SWEEP_S = 3600.0
_MOST_AT_ONCE = 1000


class Runner:
    def __init__(self, means: Means, lock: RunnerLock, metrics: Metrics) -> None:
        self._means = means
        self._lock = lock
        self._runs: dict[str, tuple[Run, asyncio.Task[None]]] = {}
        self._not_before: dict[str, float] = {}
        """Of batches that something came between, on the monotonic clock."""
        self._bell = asyncio.Event()
        self._swept_at = float("-inf")
        metrics.gauge(
            "forebay_admin_batches_running",
            "Batches that this replica runs.",
            (),
            lambda: [((), float(len(self._runs)))],
        )

    def wake(self) -> None:
        """Something has changed: look now."""
        self._bell.set()

    async def keep(self) -> None:
        """For ever."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    holder = await self._lock.look()
                    if holder is Holder.WE:
                        await self._look(tasks)
                    elif holder is Holder.ANOTHER:
                        await self._stand_down()
                    # Unknown: nobody can take it either. What is under way goes on, and its answers are kept later.
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._means.terms.look_s):
                            await self._bell.wait()
                    self._bell.clear()
        finally:
            self._lock.leave()

    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        try:
            async with self._means.database.reading() as connection:
                found = await unfinished_batches(connection)
            await self._sweep()
        except (Unavailable, DBAPIError) as error:
            log.debug("batches not looked at", extra={"action": "batch_look", "why": str(error)})
            return
        now = self._means.clock.monotonic()
        running = Counter(batch.order.user_id for batch in found if batch.id in self._runs)
        for batch in found:
            if batch.id in self._runs:
                self._tell(self._runs[batch.id][0], batch)
            elif now >= self._not_before.get(batch.id, now) and (
                running[batch.order.user_id] < _AT_ONCE_PER_USER or batch.status is Status.CANCELLING
            ):
                running[batch.order.user_id] += 1
                run = Run(self._means, batch)
                self._tell(run, batch)
                self._runs[batch.id] = run, tasks.create_task(self._run(run, batch.id), name="batch")

    def _tell(self, run: Run, batch: Batch) -> None:
        if batch.status is Status.CANCELLING:
            run.end(Ending.CANCELLED)
        elif self._means.now() >= batch.expires_at:
            run.end(Ending.EXPIRED)

    async def _run(self, run: Run, id: str) -> None:
        """Never fails: what one batch trips over is not the others'."""
        try:
            await run.run()
            self._not_before.pop(id, None)
        except Exception as error:
            self._not_before[id] = self._means.clock.monotonic() + _RETRY_S
            if isinstance(error, Unavailable):
                log.warning("batch waits", extra={"action": "batch_wait", "batch": id, "why": error.message})
            else:
                log.exception("batch tripped, taking it up again soon", extra={"action": "batch_tripped", "batch": id})
        finally:
            del self._runs[id]
            self.wake()

    async def _stand_down(self) -> None:
        """Another replica runs them: what is under way here is cut, and the ledger tells it what became of that."""
        standing = [task for _, task in self._runs.values()]
        for task in standing:
            task.cancel()
        if standing:
            log.warning("another replica runs batches, cutting ours", extra={"action": "batch_stand_down"})
            await asyncio.wait(standing)

    async def _sweep(self) -> None:
        now = self._means.clock.monotonic()
        if now - self._swept_at < _SWEEP_S:
            return
        self._swept_at = now
        async with self._means.database.writing() as connection:
            await remove_finished(connection, self._means.now() - KEPT, _MOST_AT_ONCE)
