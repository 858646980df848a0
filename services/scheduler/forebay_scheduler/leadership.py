"""Being the leader: the epoch under which grants are given, and the renewals that gateways measure their fence from.

One scheduler leads everything; others stand by. Who leads is one entry of a bucket whose entries live for two seconds: it
is made where there is none, and written again every half second by compare and set. Nothing here stops a leader that
cannot reach the bus: it goes on within the stored ceilings, and a successor's first act is to shut it out there."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable
from types import TracebackType

from forebay.bus import Bucket, Bus, Entry, WrongRevision
from forebay.clock import Clock, micros
from forebay.errors import Unavailable
from forebay.ops import Ops
from forebay.subjects import LEADER_BUCKET
from forebay_scheduler.request import Epoch

log = logging.getLogger(__name__)

LEAD_LASTS_S = 2.0
"""After the last renewal. Then the entry is gone, and the first who asks is the next leader."""
RENEW_EVERY_S = 0.5
_RETRY_S = 0.25  # expiry tells nobody, so those who stand by have to ask
_OVERDUE_S = (
    1.2  # without a renewal for so long, the leader is probably gone, and the end of its entry is watched closely
)
_CLOSE_RETRY_S = 0.05
_CALL_S = 1.0
_RELEASE_S = 0.5

_KEY = "leader"


class Leadership:
    """`async with Leadership(…) as leadership`: then `win()`, and `renew()` beside the work until it returns. After that
    `win()` may be asked again, for a later epoch. Leaving gives the lead up, so that whoever stands by has it at once."""

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        ops: Ops,
        renew_every_s: float = RENEW_EVERY_S,
        *,
        address: str = "",
        tell_away: Callable[[bool], None] = lambda is_away: None,
    ) -> None:
        """`address` is where gateways find this scheduler. `tell_away` hears when a renewal fails for want of the bus, and
        when one succeeds again."""
        self._bus = bus
        self._clock = clock
        self._ops = ops
        self._every_s = renew_every_s
        self._tell_away = tell_away
        mark = os.urandom(16).hex()
        """Ours alone: without it the entry of a successor at the same address would look like ours."""
        self._value = json.dumps({"address": address, "mark": mark}).encode()
        self._bucket: Bucket | None = None
        self._epoch = Epoch(0, 0)
        self._revision = 0
        self._renewed_at = clock.monotonic()
        self._is_away = False
        self._has_lead = False
        self.leader_address = ""
        """Who leads, as far as is known here; empty when nobody does."""
        self.stands_by = asyncio.Event()
        """Set once it is known that somebody else leads, or is given the time to."""

    async def __aenter__(self) -> Leadership:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.release()

    @property
    def renewed_ago_s(self) -> float:
        """Since the last successful renewal began."""
        return self._clock.monotonic() - self._renewed_at

    @property
    def is_certain(self) -> bool:
        """Nobody else can have taken the lead yet, unless the clock of the NATS server was set forward."""
        return self._has_lead and self.renewed_ago_s < LEAD_LASTS_S

    async def win(self) -> Epoch:
        """Stands by until nobody leads, then leads. Waits for the bus as long as it takes: without it nobody could prove
        that we do."""
        if self._bucket is None:
            self._ops.not_ready("bus", "NATS, which says who leads, has not answered yet")
        was_away, patient_until = False, 0.0
        seen, seen_at = 0, self._clock.monotonic()
        while True:
            was_away = was_away or (not self._bus.is_connected and self._bucket is not None)
            await self._bus.wait_connected()
            began = self._clock.monotonic()
            try:
                entry = await self._look()
                if was_away:
                    # Its own entry died with the bus. A leader that lives is given the time to come back before us:
                    # a change of leaders costs every gateway its session.
                    was_away, patient_until = False, began + LEAD_LASTS_S
                if self._is_free(entry) and began >= patient_until:
                    return await self._take(entry, began)
                self.stands_by.set()
            except WrongRevision:
                continue  # somebody was faster
            except Unavailable as error:
                was_away = self._bucket is not None
                log.info("waiting for the leader bucket", extra={"action": "lead_wait", "why": error.message})
            else:
                if entry is not None and entry.revision != seen:
                    seen, seen_at = entry.revision, began
            await asyncio.sleep(_CLOSE_RETRY_S if seen and began - seen_at >= _OVERDUE_S else _RETRY_S)

    async def renew(self) -> None:
        """Until the lead is lost. While the bus is away, renewals only grow old."""
        while True:
            await asyncio.sleep(self._every_s)
            began = self._clock.monotonic()
            try:
                async with asyncio.timeout(_CALL_S):
                    is_ours = await self._renew_once()
            except (Unavailable, TimeoutError) as error:
                log.debug("renewal failed", extra={"action": "lead_renew", "why": repr(error)})
                self._note_bus(is_away=True)
                continue
            if not is_ours:
                self._has_lead = False
                log.warning("the lead is lost", extra={"action": "lead_lost", "leader": self.leader_address})
                return
            self._renewed_at = began
            self._note_bus(is_away=False)

    async def release(self) -> None:
        """Gives the lead up if it is still ours; nothing may be granted after this. Where the bus is away, it runs out."""
        if not self._has_lead or self._bucket is None:
            return
        self._has_lead = False
        try:
            async with asyncio.timeout(_RELEASE_S):
                entry = await self._bucket.get(_KEY)  # its revision: a renewal may have been cut off on its way
                if entry is not None and entry.value == self._value:
                    await self._bucket.delete(_KEY, entry.revision)
                    log.info("the lead is given up", extra={"action": "lead_release"})
        except (Unavailable, WrongRevision, TimeoutError) as error:
            log.info("the lead runs out by itself", extra={"action": "lead_release", "why": repr(error)})

    async def _look(self) -> Entry | None:
        if self._bucket is None:
            self._bucket = await self._bus.bucket(LEADER_BUCKET, entries_live_s=LEAD_LASTS_S)
            self._ops.ready("bus")
        entry = await self._bucket.get(_KEY)
        self._note_leader(entry)
        return entry

    def _is_free(self, entry: Entry | None) -> bool:
        """Or ours already: of a create whose answer was lost, or of a lead that could not be shown to be unbroken."""
        return entry is None or entry.value == self._value

    async def _take(self, entry: Entry | None, began: float) -> Epoch:
        assert self._bucket is not None
        self._revision = await self._bucket.update(_KEY, self._value, entry.revision if entry else 0)
        self._epoch = Epoch(micros(self._bucket.created_at), self._revision)
        self._renewed_at, self._has_lead = began, True
        self._note_leader(Entry(self._value, self._revision))
        self._note_bus(is_away=False)
        log.info("leading", extra={"action": "lead", "term_us": self._epoch.term_us, "revision": self._epoch.revision})
        return self._epoch

    async def _renew_once(self) -> bool:
        """Whether we lead still, and have led without a break. Raises Unavailable."""
        assert self._bucket is not None
        try:
            revision = await self._bucket.update(_KEY, self._value, self._revision)
        except WrongRevision:
            if not await self._was_unbroken():
                return False
            revision = await self._written_again()
        self._revision = revision
        # A bucket made anew counts from one again: its revisions say nothing about ours.
        return micros(self._bucket.created_at) == self._epoch.term_us

    async def _was_unbroken(self) -> bool:
        """The entry is not as we left it. Either a write of ours was stored and its answer lost, or the entry is gone (we
        were stopped, or the bus was away for longer than it lives) and is now made again. Every leader writes to this
        bucket: if the entry has the very next revision after ours, nobody has led in between."""
        assert self._bucket is not None
        entry = await self._bucket.get(_KEY)
        self._note_leader(entry)
        if entry is None:
            try:
                entry = Entry(self._value, await self._bucket.update(_KEY, self._value, 0))
            except WrongRevision:
                return False
        if entry.value != self._value or entry.revision != self._revision + 1:
            return False
        self._revision = entry.revision
        return True

    async def _written_again(self) -> int:
        """What was found may have been written long ago; only a write of now is a renewal."""
        assert self._bucket is not None
        try:
            return await self._bucket.update(_KEY, self._value, self._revision)
        except WrongRevision as error:
            raise Unavailable("The leader's entry changes while it is looked at.") from error

    def _note_leader(self, entry: Entry | None) -> None:
        address = _address_in(entry)
        if address != self.leader_address and entry is not None and entry.value != self._value:
            log.info("standing by", extra={"action": "lead_standby", "leader": address})
        self.leader_address = address

    def _note_bus(self, *, is_away: bool) -> None:
        if is_away != self._is_away:
            self._is_away = is_away
            self._tell_away(is_away)


def _address_in(entry: Entry | None) -> str:
    try:
        return str(json.loads(entry.value)["address"]) if entry else ""
    except (ValueError, KeyError, TypeError):
        return ""
