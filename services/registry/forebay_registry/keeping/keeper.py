"""Keeping memory, Postgres and the snapshot file in step, whichever of them is there.

At a start the fleet comes from Postgres, or, while that is away, from the snapshot; once Postgres is there, it is right.
Afterwards what engines said is written down as it changes, and the wanted fleet is read again now and then, for changes
that another registry made."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import islice

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import ForebayError, Unavailable
from forebay.ops import Ops
from forebay.sealed import SnapshotFile
from forebay_registry.config import FILE_ACTOR
from forebay_registry.keeping import snapshot
from forebay_registry.keeping.store import MIGRATIONS, Store
from forebay_registry.leadership.lead import Lead
from forebay_registry.leadership.standing import Standing
from forebay_registry.roster import Roster
from forebay_registry.wanted.plan import without
from forebay_registry.wanted.specs import FleetOrder
from forebay_registry.wanted.state import Outdated

log = logging.getLogger(__name__)

_REWRITE_S = 3600.0
"""An unchanged snapshot is written again, so that its age says when it was last known to be right."""
_PAUSE_S = 0.25
"""Between two rounds of saving: an engine that changes its mind all the time must not write all the time."""
_SNAPSHOT_SHARE, _SNAPSHOT_GAP_S = 0.05, 5.0
"""Of our time, at most, for snapshots, and seconds between two of them, at most: it is written whole, and in a large fleet
something changes all the time."""
_BATCH = 100
_RETRY_S = 1.0
"""While Postgres is away."""
WAITING = "the wanted fleet"


async def _nothing() -> None:
    return


class Keeper:
    def __init__(
        self,
        *,
        roster: Roster,
        database: Database,
        store: Store,
        lead: Lead,
        file: SnapshotFile | None,
        file_fleet: FleetOrder,
        ops: Ops,
        clock: Clock,
        reload_s: float,
        load_first: Callable[[], Awaitable[None]] = _nothing,
    ) -> None:
        """`load_first`: what has to be known of the fleet before it is placed."""
        self._roster = roster
        self._database = database
        self._store = store
        self._lead = lead
        self._file = file
        self._file_fleet: FleetOrder | None = file_fleet
        self._ops = ops
        self._clock = clock
        self._reload_s = reload_s
        self._load_first = load_first
        self._written: bytes | None = None
        self._written_at = 0.0
        self._gap_s = 0.0
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
        self._roster.adopt(kept, anew=True)
        self._lead.remember(snapshot.epoch_in(payload))
        self._written, self._written_at = payload, self._clock.monotonic()
        self._ops.ready(WAITING)
        log.info("fleet known from a snapshot", extra={"action": "snapshot_used", "backends": len(kept.backends)})

    async def run(self) -> None:
        """Until cancelled. While another registry leads, what it wrote is read, and nothing written."""
        await self._begin()
        reloaded_at = self._clock.monotonic()
        while True:
            due_s = reloaded_at + self._reload_s - self._clock.monotonic()
            await self._change_or(max(_PAUSE_S, due_s) if self.is_in_step else _RETRY_S)
            if self._lead.stance.standing is Standing.STANDBY:
                self._roster.unsaved.clear()
            try:
                await self._save_seen()
                if not self.is_in_step or self._clock.monotonic() - reloaded_at >= self._reload_s:
                    await self._reload()
                    reloaded_at = self._clock.monotonic()
                self._note(in_step=True)
            except Unavailable as error:
                self._note(in_step=False, why=error.message)
            if self.is_in_step:
                await self._write_snapshot()
            await asyncio.sleep(_PAUSE_S)

    async def take_over(self) -> None:
        """The lead is ours: the fleet as it is now, and then changes can be made. Until cancelled."""
        self._roster.stored.clear()
        while True:
            try:
                await self._load(anew=self._lead.is_fresh)
                break
            except Unavailable:
                await asyncio.sleep(_PAUSE_S)
        self._roster.stored.set()
        if self._file_fleet is not None:  # at a start, and not whenever the lead comes back
            await self._want(self._file_fleet)
            self._file_fleet = None

    async def drain(self) -> None:
        """What the next start begins with, should Postgres be away then."""
        if self.is_in_step:
            await self._write_snapshot(is_last=True)

    async def _begin(self) -> None:
        def tell(why: str) -> None:
            if not self._roster.known.is_set():
                self._ops.not_ready(WAITING, why)

        while True:
            try:
                await self._database.prepare(MIGRATIONS, tell)
                self._lead.tables.set()
                await self._lead.asked(_PAUSE_S)
                if not self._lead.stance.leads:  # else `take_over` does
                    await self._load()
                break
            except Unavailable as error:  # it went away again in between
                tell(error.message)
                await asyncio.sleep(_PAUSE_S)
        await self._roster.known.wait()
        self._ops.ready(WAITING)
        self._note(in_step=True)

    async def _want(self, order: FleetOrder) -> None:
        """What of it cannot be is told and left out; the rest is made so."""
        while True:
            try:
                answer = await self._roster.change_fleet(order, actor=FILE_ACTOR, prune=False, dry_run=False)
            except (Unavailable, Outdated):
                await asyncio.sleep(1.0)
                continue
            except ForebayError as error:
                log.error(
                    "fleet of the configuration not wanted", extra={"action": "file_refused", "why": error.message}
                )
                return
            for problem in answer.problems:
                fields = {"action": "file_entry_refused", "entry": problem.path, "why": problem.why}
                log.error("entry of the configuration left out", extra=fields)
            if not answer.problems:
                return
            order = without(order, answer.problems)

    async def _reload(self) -> None:
        """What others changed. While we lead nobody does, and then only the version is asked for."""
        if not self._lead.stance.leads or await self._store.version() != self._roster.version:
            await self._load()

    async def _load(self, *, anew: bool = False) -> None:
        """`anew`: what is seen, too. Another registry saw it and wrote it down."""
        async with self._roster.writing:
            await self._load_first()
            self._roster.adopt(await self._store.load(), anew=anew or not self._lead.stance.acts)

    async def _save_seen(self) -> None:
        unsaved = self._roster.unsaved
        while unsaved and self._lead.stance.leads:
            batch = dict(islice(unsaved.items(), _BATCH))
            await self._store.remember_all(batch)
            for backend_id, said in batch.items():
                if unsaved.get(backend_id) == said:
                    del unsaved[backend_id]

    async def _change_or(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._roster.changed.wait()
        except TimeoutError:
            return
        self._roster.changed.clear()

    async def _write_snapshot(self, *, is_last: bool = False) -> None:
        if self._file is None:
            return
        now = self._clock.monotonic()
        if not is_last and now - self._written_at < self._gap_s:
            self._roster.changed.set()  # a little later
            return
        payload = snapshot.encode(self._roster.kept(), self._lead.stance.epoch)
        if payload == self._written and now - self._written_at < _REWRITE_S:
            return
        try:
            await asyncio.to_thread(self._file.write, payload, self._clock.now())
        except OSError as error:
            log.error("snapshot not written", extra={"action": "snapshot_failed", "why": str(error)})
            return
        self._written, self._written_at = payload, now
        self._gap_s = min(_SNAPSHOT_GAP_S, (self._clock.monotonic() - now) / _SNAPSHOT_SHARE)

    def _note(self, *, in_step: bool, why: str = "") -> None:
        if in_step != self.is_in_step:
            if in_step:
                log.info("in step with Postgres", extra={"action": "database_back"})
            else:
                fields = {"action": "database_away", "why": why}
                log.warning("Postgres is away: the fleet goes on from memory, changes wait", extra=fields)
        self.is_in_step = in_step
