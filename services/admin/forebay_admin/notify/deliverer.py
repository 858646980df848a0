"""Tells what the outbox holds: each subscription in a task of its own, so that a slow or dead one delays no other. What was
taken and not noted, because its replica died, is told again: at least once, and twice under the same id."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import aiohttp
from sqlalchemy.exc import DBAPIError

from forebay import subjects
from forebay.bus import Bus
from forebay.clock import Clock
from forebay.errors import Unavailable
from forebay.metrics import Metrics
from forebay.webhook import Posted, post
from forebay_admin.notify.delivery_rules import State, after
from forebay_admin.notify.delivery_store import TAKEN_FOR, DeliveryStore, Taken
from forebay_admin.notify.mail import Mailer
from forebay_admin.notify.notify_wire import event_to_wire
from forebay_admin.notify.subscriptions import Channel, is_mail, key_of
from forebay_admin.notify.wording import body_of

log = logging.getLogger(__name__)

LOOK_S = 1.0
_KEEP_EVERY_S = 60.0
_LONGEST = TAKEN_FOR / 3
"""After which what was taken and not tried yet is put back."""


class Deliverer:
    def __init__(
        self,
        store: DeliveryStore,
        session: aiohttp.ClientSession,
        mailer: Mailer,
        bus: Bus,
        clock: Clock,
        metrics: Metrics,
        *,
        keep_days: int,
        look_s: float = LOOK_S,
    ) -> None:
        self._store = store
        self._session = session
        self._mailer = mailer
        self._bus = bus
        self._clock = clock
        self._keep = timedelta(days=keep_days)
        self._look_s = look_s
        self._busy: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._told = metrics.counter("forebay_admin_events_told", "Tries to tell of an event.", ("channel", "outcome"))
        metrics.gauge(
            "forebay_admin_event_deliveries",
            "What was not delivered, as it was counted last: it waits, or was given up.",
            ("state",),
            lambda: [((state,), float(number)) for state, number in self._numbers.items()],
        )

    async def keep(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_young(), name="events-keeping")
            while True:
                try:
                    for name, some in (await self._store.take(self._now(), self._busy)).items():
                        self._busy.add(name)
                        tasks.create_task(self._tell_all(name, some), name=f"tell-{name}")
                except Unavailable as error:
                    log.debug("events wait", extra={"action": "events_wait", "why": error.message})
                except DBAPIError as error:
                    log.error("events are not told", extra={"action": "events_stuck", "why": str(error.orig)})
                await asyncio.sleep(self._look_s)

    async def _tell_all(self, name: str, some: Sequence[Taken]) -> None:
        try:
            failures, began = some[0].failures, self._now()
            for index, taken in enumerate(some):
                failures = await self._tell(taken, failures)
                # Nor on, where it is slow: another replica would soon take the rest for left behind.
                if failures or self._now() - began > _LONGEST:
                    await self._store.put_back(some[index + 1 :], self._now())
                    break
        except Unavailable as error:  # they are taken again when their time is over
            log.debug("not noted what was told", extra={"action": "events_wait", "why": error.message})
        except DBAPIError as error:
            log.error("not noted what was told", extra={"action": "events_stuck", "why": str(error.orig)})
        finally:
            self._busy.discard(name)

    async def _tell(self, taken: Taken, failures: int) -> int:
        """How often the subscription has failed in a row now."""
        posted = await self._post(taken)
        now = self._now()
        outcome = after(
            posted,
            attempts=taken.attempts,
            since=taken.since,
            failures=failures,
            now=now,
            jitter=random.SystemRandom().random(),
        )
        self._told.child(taken.channel.value, outcome.state.value).value += 1
        fields = {"subscription": taken.subscription_id, "event": taken.event.id, "said": posted.said}
        if outcome.state is State.DEAD:
            log.error("an event is told no more", extra={"action": "event_dead", **fields})
        elif outcome.state is State.WAITING and not failures:
            log.warning("a subscription fails, its events wait", extra={"action": "event_waits", **fields})
        await self._store.note(taken, outcome, posted.said, now)
        return outcome.failures

    async def _post(self, taken: Taken) -> Posted:
        match taken.channel:
            case Channel.NATS:
                return await self._publish(taken)
            case Channel.MAIL:
                if not is_mail(taken.address):  # whom it is about is called otherwise by now
                    return Posted(False, "Whom it is about has no name that is a mail address.", 0.0, is_gone=True)
                return await self._mailer.send(taken.address, taken.event)
            case Channel.WEBHOOK:
                if taken.sealed is None:
                    return Posted(False, "It cannot be opened with this seal key: add it again.", 0.0, is_gone=True)
                return await post(
                    self._session,
                    taken.sealed["url"],
                    key_of(taken.sealed["secret"]),
                    taken.event.id,
                    body_of(taken.event),
                    now=self._clock.now(),
                )

    async def _publish(self, taken: Taken) -> Posted:
        if not self._bus.is_connected:
            return Posted(False, "NATS is away.", 0.0)
        # Who wants them kept makes a stream of their own of these subjects, which takes what is published.
        await self._bus.publish(subjects.notice(taken.event.kind), event_to_wire(taken.event).SerializeToString())
        return Posted(True, "It is published.", 0.0)

    async def _keep_young(self) -> None:
        while True:
            try:
                forgotten = 1 if self._keep else 0
                while forgotten:
                    forgotten = await self._store.forget(self._now() - self._keep)
                self._numbers = await self._store.numbers()
            except Unavailable as error:
                log.debug("events not forgotten", extra={"action": "events_wait", "why": error.message})
            except DBAPIError as error:
                log.error("events not forgotten", extra={"action": "events_stuck", "why": str(error.orig)})
            await asyncio.sleep(_KEEP_EVERY_S)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)
