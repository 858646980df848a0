"""How jobs go, written down: states at once, progress now and then, and again until Postgres has it. What is over and
written is let go of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from forebay.clock import Clock
from forebay.errors import Unavailable
from forebay_registry.library.job import Job, JobId

log = logging.getLogger(__name__)

KEEP_S = 30 * 24 * 3600.0
"""How long a job is remembered after its end."""
_SAVE_PROGRESS_S = 5.0
_RETRY_S = 1.0


class Keeps(Protocol):
    async def save(self, job: Job) -> None: ...
    async def remove(self, job_id: JobId) -> None: ...
    async def unfinished(self) -> tuple[Job, ...]: ...
    async def forget(self, before: float) -> int: ...


class JobSaver:
    def __init__(
        self,
        store: Keeps,
        clock: Clock,
        *,
        job_of: Callable[[JobId], Job | None],
        let_go: Callable[[JobId], None],
    ) -> None:
        """`job_of`: one that is under way here, as it is now. `let_go`: it is over, and written down."""
        self._store = store
        self._clock = clock
        self._job_of = job_of
        self._let_go = let_go
        self._unsaved: set[JobId] = set()
        self._doubtful: set[JobId] = set()
        self._pressing = asyncio.Event()

    def note(self, job_id: JobId, *, pressing: bool) -> None:
        """It is not any more as it was written down."""
        self._unsaved.add(job_id)
        if pressing:
            self.press()

    def press(self) -> None:
        """Writes what there is now."""
        self._pressing.set()

    def doubt(self, job_id: JobId) -> None:
        """Whether it was stored is not known, and whoever ordered it was told that it failed."""
        self._doubtful.add(job_id)

    async def unfinished(self) -> tuple[Job, ...]:
        """Those that somebody was told to be begun, as soon as Postgres says which they are."""
        while True:
            try:
                return tuple(job for job in await self._store.unfinished() if job.id not in self._doubtful)
            except Unavailable:
                await asyncio.sleep(_RETRY_S)

    def stop(self) -> None:
        """What is under way is somebody else's now."""
        self._unsaved.clear()

    async def run(self) -> None:
        """Until cancelled."""
        prune_at = self._clock.monotonic()
        while True:
            await self._pressing_or(_SAVE_PROGRESS_S)
            try:
                await self._save()
                if self._clock.monotonic() >= prune_at:
                    await self._store.forget(self._clock.now() - KEEP_S)
                    prune_at = self._clock.monotonic() + 3600.0
            except Unavailable as error:
                log.debug("model jobs wait to be saved", extra={"action": "model_jobs_wait", "why": error.message})
                self.press()
                await asyncio.sleep(_RETRY_S)

    async def _save(self) -> None:
        while self._unsaved:
            job_id = self._unsaved.pop()
            job = self._job_of(job_id)
            if job is None:  # cancelled while this registry lost the lead
                continue
            try:
                await self._store.save(job)
            except (Unavailable, asyncio.CancelledError):
                self._unsaved.add(job_id)
                raise
            except Exception:
                log.exception("model job cannot be kept", extra={"action": "internal", "job": job_id})
            if job.state.is_over:
                self._let_go(job_id)
                self._unsaved.discard(job_id)
        for job_id in tuple(self._doubtful):
            await self._store.remove(job_id)
            self._doubtful.discard(job_id)

    async def _pressing_or(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._pressing.wait()
        except TimeoutError:
            return
        self._pressing.clear()
