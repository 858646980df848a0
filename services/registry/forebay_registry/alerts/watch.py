"""Alerts at work: every few seconds the rules look at what is so, and each event is told (on NATS, to webhooks, to whoever
follows) and kept. What is open, silenced and still to be told is in memory, and written down as soon as Postgres takes it,
so that a registry without Postgres can say so."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import IntegrityError

from forebay import subjects
from forebay.bus import Bus
from forebay.clock import Clock
from forebay.errors import NotFound, Unavailable
from forebay_registry.alerts.book import Alert, Book, Event, Kind, Silence
from forebay_registry.alerts.deliveries import Deliveries, Place
from forebay_registry.alerts.facts import Facts
from forebay_registry.alerts.findings import find
from forebay_registry.alerts.outbox import Letter
from forebay_registry.alerts.rules import AlertSettings, Severity
from forebay_registry.alerts.store import AlertStore
from forebay_registry.alerts.wire import to_event

log = logging.getLogger(__name__)

ROUND_S = 5.0
_PATIENCE_S = 10.0
"""How long a start waits for Postgres to say what is open, before it begins without."""
_PAUSE_S = 0.5
_FORGET_S = 3600.0
_BEHIND = 500
_MOST_UNSAVED = 20_000
"""Of each kind, while Postgres is away; then the oldest goes, and with it what the next registry would have known."""
_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.CRITICAL: logging.ERROR}


@dataclass(slots=True, eq=False)
class _Follower:
    news: deque[Event] = field(default_factory=deque)
    has_news: asyncio.Event = field(default_factory=asyncio.Event)
    is_lost: bool = True
    """It has to hear anew what is open."""
    is_over: bool = False
    """Another registry acts."""


@dataclass(frozen=True, slots=True)
class News:
    """What a follower hears."""

    open: tuple[Alert, ...] | None
    """All that are open; None: as they were, but for the events."""
    events: tuple[Event, ...] = ()


class AlertWatch:
    def __init__(
        self,
        store: AlertStore,
        bus: Bus,
        clock: Clock,
        settings: AlertSettings,
        deliveries: Deliveries,
        *,
        read: Callable[[], Awaitable[Facts]],
        tables: asyncio.Event,
        round_s: float = ROUND_S,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        """`read` raises Unavailable while the fleet is not known; `tables` is set when the schema is there."""
        self._store = store
        self._bus = bus
        self._clock = clock
        self._settings = settings
        self._deliveries = deliveries
        self._read = read
        self._tables = tables
        self._round_s = round_s
        self._patience_s = patience_s
        self.book = self._new_book()
        self._unsaved: dict[str, Alert] = {}
        self._letters: dict[Place, Letter] = {}
        self._followers: set[_Follower] = set()
        self._keeping = asyncio.Lock()
        self._changed = asyncio.Event()
        """There is something to keep."""
        self._recalled = asyncio.Event()
        """What is stored is known."""
        deliveries.on_over = self._changed.set

    async def run(self) -> None:
        """Until cancelled, and again whenever this registry acts again: then as it is stored."""
        self.book = self._new_book()
        self._recalled.clear()
        self._unsaved.clear()
        self._letters.clear()
        self._deliveries.forget()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._rounds(), name="alert-rounds")
                tasks.create_task(self._keep(), name="keep-alerts")
                tasks.create_task(self._deliveries.run(), name="webhooks")
        finally:
            for follower in self._followers:
                follower.is_over = True
                follower.has_news.set()

    async def drain(self) -> None:
        """What was not written down yet, if Postgres takes it."""
        try:
            if self._recalled.is_set():
                await self._save()
        except Unavailable as error:
            fields = {"action": "alerts_lost", "alerts": len(self._unsaved), "why": error.message}
            log.warning("last alerts not stored", extra=fields)

    async def look(self) -> None:
        """One round. Raises Unavailable while the fleet is not known."""
        seen = find(await self._read(), self._settings, self.book.holding)
        await self._tell(self.book.judge(seen, self._clock.monotonic(), self._clock.now()))

    # --- operators --------------------------------------------------------------------------------------------------

    def alerts(self) -> list[Alert]:
        """Those that are open, the gravest and newest first."""
        return sorted(self.book.open.values(), key=lambda a: (-a.severity.rank, -a.opened_at, a.id))

    def silence_of(self, alert: Alert) -> Silence | None:
        return self.book.silence_of(alert, self._clock.now()) if alert.closed_at is None else None

    async def ack(self, alert_id: str, actor: str, note: str) -> tuple[Alert, Alert]:
        """Before and after. Raises NotFound, Unavailable."""
        await self._demand_recalled()
        before = next((a for a in self.book.open.values() if a.id == alert_id), None)
        event = self.book.ack(alert_id, actor, note, self._clock.now())
        if before is None or event is None:
            raise NotFound(f"No alert {alert_id[:80]} is open. `forebay alert list` shows those that are.")
        await self._tell([event])
        await self._save()
        return before, event.alert

    async def silence(
        self, subject: str, rule: str, for_s: int, actor: str, reason: str
    ) -> tuple[Silence | None, Silence]:
        """What it replaced, and the new one. Raises Unavailable."""
        await self._demand_recalled()
        today = self._clock.now()
        silence = Silence(f"si-{secrets.token_hex(4)}", subject, rule, today, actor, today + for_s, reason)
        await self._store.put_silence(silence)
        before = self.book.silences.get((subject, rule))
        self.book.silences[subject, rule] = silence
        fields = {"action": "alerts_silenced", "subject": subject, "rule": rule, "actor": actor, "for_s": for_s}
        log.info("alerts silenced", extra=fields)
        return before, silence

    async def unsilence(self, subject: str, rule: str) -> list[Silence]:
        """Those that ended: by subject, and by rule if one is named, or by its id. Raises NotFound, Unavailable."""
        await self._demand_recalled()
        ended = [
            s for s in self.book.silences.values() if subject in (s.subject, s.id) and (not rule or rule == s.rule)
        ]
        if not ended:
            raise NotFound(f"Nothing is silenced as {subject[:80]}. `forebay alert list` shows what is.")
        await self._store.end_silences([s.id for s in ended])
        for silence in ended:
            self.book.silences.pop((silence.subject, silence.rule), None)
        return ended

    async def follow(self) -> AsyncGenerator[News, None]:
        """What is open, then each event; what is open again where too much happened for this reader."""
        follower = _Follower()
        self._followers.add(follower)
        try:
            while True:
                if follower.is_lost:
                    follower.is_lost = False
                    follower.news.clear()
                    yield News(tuple(self.alerts()))
                elif follower.news:
                    events = tuple(follower.news)
                    follower.news.clear()
                    yield News(None, events)
                follower.has_news.clear()
                if not (follower.news or follower.is_lost or follower.is_over):
                    await follower.has_news.wait()
                if follower.is_over:
                    raise Unavailable("Another registry tells of alerts now.", retry_after_s=1.0)
        finally:
            self._followers.discard(follower)

    async def test(self) -> Event:
        """An event that nothing happened for, told on NATS."""
        today = self._clock.now()
        alert = Alert(
            id=f"al-test-{secrets.token_hex(4)}",
            rule=Kind.TEST,
            subject="registry",
            node="",
            severity=Severity.INFO,
            summary="This is a test: nothing happened.",
            todo="Nothing is to be done.",
            began_at=today,
            opened_at=today,
            notified_at=today,
            events=1,
        )
        event = Event(Kind.TEST, today, alert)
        await self._bus.publish(subjects.alerts(Kind.TEST), to_event(event).SerializeToString())
        return event

    # --- inside -----------------------------------------------------------------------------------------------------

    async def _rounds(self) -> None:
        try:
            async with asyncio.timeout(self._patience_s):
                await self._recalled.wait()
        except TimeoutError:
            fields = {"action": "alerts_not_recalled"}
            log.warning("Postgres does not say which alerts are open: beginning without", extra=fields)
        while True:
            try:
                await self.look()
            except Unavailable as error:
                log.debug("alerts wait", extra={"action": "alerts_wait", "why": error.message})
            await asyncio.sleep(self._round_s)

    async def _tell(self, events: list[Event]) -> None:
        for event in events:
            alert = event.alert
            self._unsaved[alert.id] = alert
            self._letters |= self._deliveries.put(event)
            for follower in self._followers:
                follower.is_lost = follower.is_lost or len(follower.news) >= _BEHIND
                follower.news.append(event)
                follower.has_news.set()
            fields = {"action": f"alert_{event.kind}", "alert": alert.id, "rule": alert.rule, "subject": alert.subject}
            level = _LEVELS[alert.severity] if event.kind in (Kind.OPENED, Kind.GRAVER) else logging.INFO
            log.log(level, "alert %s", event.kind, extra={**fields, "why": alert.summary})
        for event in events:
            told = to_event(event, self.silence_of(event.alert))
            await self._bus.publish(subjects.alerts(event.alert.rule), told.SerializeToString())
        _forget_oldest(self._unsaved)
        _forget_oldest(self._letters)
        if events:
            self._changed.set()

    async def _keep(self) -> None:
        forgot_at = self._clock.monotonic()
        while True:
            try:
                await self._save()
                if self._clock.monotonic() - forgot_at >= _FORGET_S:
                    forgot_at = self._clock.monotonic()
                    await self._forget()
            except Unavailable as error:
                log.debug("alerts are not stored yet", extra={"action": "alerts_unsaved", "why": error.message})
                await asyncio.sleep(_PAUSE_S)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(_FORGET_S):
                    await self._changed.wait()
            await asyncio.sleep(_PAUSE_S / 5)  # what comes together is written together

    async def _save(self) -> None:
        """Raises Unavailable; then it is tried again."""
        async with self._keeping:
            await self._demand_recalled()
            self._changed.clear()
            over = list(self._deliveries.over)
            for place in over:
                self._letters.pop(place, None)
            changed, letters = dict(self._unsaved), dict(self._letters)
            if not (changed or letters or over):
                return
            try:
                await self._store.keep(changed.values(), letters, over)
            except IntegrityError as error:
                # Something is open there that is not known here: ask, and end one of the two.
                self._recalled.clear()
                raise Unavailable("Another alert of that rule and subject is open in Postgres.") from error
            for alert_id, alert in changed.items():
                if self._unsaved.get(alert_id) is alert:
                    del self._unsaved[alert_id]
            for place in letters:
                self._letters.pop(place, None)
            for place in over:
                self._deliveries.over.pop(place, None)

    async def _forget(self) -> None:
        today = self._clock.now()
        await self._store.forget(today - self._settings.keep_s, list(self._deliveries.receivers))
        self.book.forget_silences(today)

    async def _demand_recalled(self) -> None:
        """What is stored is known. Raises Unavailable."""
        if self._recalled.is_set():
            return
        if not self._tables.is_set():
            raise Unavailable("The registry waits for Postgres.", retry_after_s=1.0)
        stored = await self._store.load()
        if self._recalled.is_set():  # somebody else was quicker
            return
        self._recalled.set()
        self._deliveries.adopt(stored.letters)
        still_open = [alert for alert in stored.open if alert.id not in self._unsaved]
        await self._tell(self.book.adopt(still_open, stored.silences, self._clock.now()))

    def _new_book(self) -> Book:
        return Book(self._settings, lambda: f"al-{secrets.token_hex(6)}")


def _forget_oldest(unsaved: dict[Any, Any]) -> None:
    while len(unsaved) > _MOST_UNSAVED:
        del unsaved[next(iter(unsaved))]
