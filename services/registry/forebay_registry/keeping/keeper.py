"""Keeping memory, Postgres and the snapshot file in step, whichever of them is there.

At a start the fleet comes from Postgres, or, while that is away, from the snapshot; once Postgres is there, it is right.
Afterwards what engines said is written down as it changes, and the wanted fleet is read again now and then, for changes
that another registry made."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import ForebayError, Unavailable
from forebay.ops import Ops
from forebay.sealed import SnapshotFile
from forebay_registry.keeping import snapshot
from forebay_registry.keeping.store import MIGRATIONS, Store
from forebay_registry.roster import Roster
from forebay_registry.wanted.catalog import AddBackend

log = logging.getLogger(__name__)

_REWRITE_S = 3600.0
"""An unchanged snapshot is written again, so that its age says when it was last known to be right."""
_PAUSE_S = 0.25
"""Between two rounds of saving: an engine that changes its mind all the time must not write all the time."""
_RETRY_S = 1.0
"""While Postgres is away."""
WAITING = "the wanted fleet"


class Keeper:
    def __init__(
        self,
        *,
        roster: Roster,
        database: Database,
        store: Store,
        file: SnapshotFile | None,
        file_backends: Sequence[AddBackend],
        ops: Ops,
        clock: Clock,
        reload_s: float,
    ) -> None:
        self._roster = roster
        self._database = database
        self._store = store
        self._file = file
        self._file_backends = file_backends
        self._ops = ops
        self._clock = clock
        self._reload_s = reload_s
        self._written: bytes | None = None
        self._written_at = 0.0
        self.is_in_step = False
        """Whether Postgres answered the last time it was asked."""

    async def start_from_snapshot(self) -> None:
        """Makes the fleet known if there is a snapshot; until it is known, the service is not ready."""
        self._ops.not_ready(WAITING, "waiting for Postgres, and there is no snapshot to start from")
        try:
            payload = await asyncio.to_thread(self._file.read, self._clock.now()) if self._file else None
            if payload is None:
                return
            kept = snapshot.decode(payload)
        except (OSError, snapshot.NotReadable) as error:
            log.warning("snapshot not usable", extra={"action": "snapshot_unreadable", "why": str(error)})
            return
        self._roster.adopt(kept)
        self._written, self._written_at = payload, self._clock.monotonic()
        self._ops.ready(WAITING)
        log.info("fleet known from a snapshot", extra={"action": "snapshot_used", "backends": len(kept.backends)})

    async def run(self) -> None:
        """Until cancelled."""
        await self._begin()
        reloaded_at = self._clock.monotonic()
        while True:
            due_s = reloaded_at + self._reload_s - self._clock.monotonic()
            await self._change_or(max(_PAUSE_S, due_s) if self.is_in_step else _RETRY_S)
            try:
                await self._save_seen()
                if not self.is_in_step or self._clock.monotonic() - reloaded_at >= self._reload_s:
                    await self._load()
                    reloaded_at = self._clock.monotonic()
                self._note(in_step=True)
            except Unavailable as error:
                self._note(in_step=False, why=error.message)
            if self.is_in_step:
                await self._write_snapshot()
            await asyncio.sleep(_PAUSE_S)

    async def drain(self) -> None:
        """What the next start begins with, should Postgres be away then."""
        if self.is_in_step:
            await self._write_snapshot()

    async def _begin(self) -> None:
        def tell(why: str) -> None:
            if not self._roster.known.is_set():
                self._ops.not_ready(WAITING, why)

        while True:
            try:
                await self._database.prepare(MIGRATIONS, tell)
                await self._load()
                break
            except Unavailable as error:  # it went away again in between
                tell(error.message)
                await asyncio.sleep(_PAUSE_S)
        self._roster.stored.set()
        self._ops.ready(WAITING)
        self._note(in_step=True)
        for wanted in self._file_backends:
            await self._want(wanted)

    async def _want(self, wanted: AddBackend) -> None:
        while True:
            try:
                await self._roster.add_backend(wanted)
            except Unavailable:
                await asyncio.sleep(1.0)
            except ForebayError as error:
                fields = {"action": "file_backend_refused", "backend": wanted.name, "why": error.message}
                log.error("backend of the configuration not added", extra=fields)
                return
            else:
                return

    async def _load(self) -> None:
        async with self._roster.writing:
            self._roster.adopt(await self._store.load())

    async def _save_seen(self) -> None:
        unsaved = self._roster.unsaved
        while unsaved:
            backend_id, (url, seen) = next(iter(unsaved.items()))
            await self._store.remember(backend_id, url, seen)
            if unsaved.get(backend_id) == (url, seen):
                del unsaved[backend_id]

    async def _change_or(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._roster.changed.wait()
        except TimeoutError:
            return
        self._roster.changed.clear()

    async def _write_snapshot(self) -> None:
        if self._file is None:
            return
        payload, now = snapshot.encode(self._roster.kept()), self._clock.monotonic()
        if payload == self._written and now - self._written_at < _REWRITE_S:
            return
        try:
            await asyncio.to_thread(self._file.write, payload, self._clock.now())
        except OSError as error:
            log.error("snapshot not written", extra={"action": "snapshot_failed", "why": str(error)})
            return
        self._written, self._written_at = payload, now

    def _note(self, *, in_step: bool, why: str = "") -> None:
        if in_step != self.is_in_step:
            if in_step:
                log.info("in step with Postgres", extra={"action": "database_back"})
            else:
                fields = {"action": "database_away", "why": why}
                log.warning("Postgres is away: the fleet goes on from memory, changes wait", extra=fields)
        self.is_in_step = in_step
