"""The usage ledger's clerks: take batches from the bus, write them, acknowledge them once the transaction is committed.

Nothing is acknowledged that is not written, so a batch may come twice; the store lets the first row of a ledger id win.
While Postgres is away nothing is taken; what was taken goes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import NoReturn

from forebay.bus import Bus, Consumer, Delivery
from forebay.clock import Clock
from forebay.errors import Unavailable
from forebay.metrics import Metrics
from forebay.subjects import LEDGER_CONSUMER, USAGE_STREAM
from forebay_admin.ledger.ledger_store import LedgerStore
from forebay_admin.ledger.spending import Spending
from forebay_admin.ledger.usage_rows import LedgerRow, Poison, parse_batch
from forebay_admin.money.price_book import PriceBook

log = logging.getLogger(__name__)

MOST_AT_ONCE = 20
"""Messages in one transaction: at most 500 rows and 512 kB each, so that catching up never holds the loop for long."""

CLERKS = 2
"""At once, each with a transaction of its own: one parses what came while PostgreSQL writes for the other. More would
only wait for the same core."""

_WAIT_S = 1.0
_FIRST_RETRY_S, _LAST_RETRY_S = 0.25, 5.0


class Ledger:
    def __init__(
        self,
        bus: Bus,
        store: LedgerStore,
        clock: Clock,
        metrics: Metrics,
        prices: Callable[[], PriceBook | None] = lambda: None,
        on_entered: Callable[[Sequence[LedgerRow]], None] = lambda rows: None,
        spending: Spending | None = None,
    ) -> None:
        """`prices`: as they are known now. None: what requests cost is not kept. `on_entered` hears of rows once they are
        committed, and of some again; `spending` only of those that are new."""
        self._spending = spending
        self._on_entered = on_entered
        self._bus = bus
        self._prices = prices
        self._store = store
        self._clock = clock
        rows = metrics.counter("forebay_admin_ledger_rows", "Usage rows by what became of them.", ("result",))
        self._written, self._duplicates = rows.child("written"), rows.child("duplicate")
        self._dead = metrics.counter("forebay_admin_dead_letters", "Records that could not be ledger rows.").child()
        self._lag_s = 0.0
        metrics.gauge(
            "forebay_admin_ledger_lag_seconds",
            "From the end of a request to its row, for the oldest row of the last batch.",
            (),
            lambda: [((), self._lag_s)],
        )

    @property
    def written(self) -> int:
        """Rows, since it began."""
        return round(self._written.value)

    async def keep(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as clerks:
            for _ in range(CLERKS):
                clerks.create_task(self._keep(), name="ledger-clerk")

    async def _keep(self) -> None:
        """For ever."""
        retry = _Retry()
        while True:
            try:
                await self._bus.wait_connected()
                await self._bus.ensure_stream(USAGE_STREAM)
                consumer = await self._bus.consumer(USAGE_STREAM, LEDGER_CONSUMER)
                await self._read(consumer, retry)
            except Unavailable as error:
                log.debug("ledger waits", extra={"action": "ledger_wait", "why": error.message})
                await retry.wait()

    async def _read(self, consumer: Consumer, retry: _Retry) -> NoReturn:
        """For ever, or until the bus does not know the consumer (any more): raises Unavailable."""
        while True:
            # Before anything is taken: a message taken while Postgres is away only comes again later.
            await self._store.prepare_days(self._now().date())
            deliveries = await consumer.fetch(MOST_AT_ONCE, _WAIT_S)
            if deliveries:
                await self._enter(deliveries, retry)

    async def _enter(self, deliveries: Sequence[Delivery], retry: _Retry) -> None:
        rows: list[LedgerRow] = []
        poison: list[Poison] = []
        for delivery in deliveries:
            # On a thread: whoever watches for a revocation must not wait for a backlog to be parsed.
            parsed = await asyncio.to_thread(
                parse_batch, delivery.subject, delivery.payload, self._now(), self._prices()
            )
            rows += parsed.rows
            poison += parsed.poison
        try:
            written = await self._store.write(rows, poison)
        except Unavailable:
            log.warning("usage not written, giving it back", extra={"action": "ledger_back", "rows": len(rows)})
            await _all_or_later(d.give_back(retry.after_s) for d in deliveries)
            raise
        retry.begin_anew()
        self._on_entered(rows)
        if self._spending is not None:
            await self._spending.note(written.new)
        self._written.value += written.rows
        self._duplicates.value += written.duplicates
        self._dead.value += written.dead_letters
        for letter in poison:
            log.error(
                "usage record is poison", extra={"action": "dead_letter", "from": letter.subject, "why": letter.why}
            )
        if rows:
            ended = min(row.started_at.timestamp() + row.duration_ms / 1000 for row in rows)
            self._lag_s = max(0.0, self._clock.now() - ended)
        await _all_or_later(d.ack() for d in deliveries)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


class _Retry:
    """How long a clerk waits for what is away: longer each time."""

    def __init__(self) -> None:
        self.after_s = _FIRST_RETRY_S

    def begin_anew(self) -> None:
        self.after_s = _FIRST_RETRY_S

    async def wait(self) -> None:
        await asyncio.sleep(self.after_s)
        self.after_s = min(self.after_s * 2, _LAST_RETRY_S)


async def _all_or_later(words: Iterable[Awaitable[None]]) -> None:
    """Tells the bus; what it does not hear makes the message come again by itself, and the store knows its rows."""
    for outcome in await asyncio.gather(*words, return_exceptions=True):
        if isinstance(outcome, Unavailable):
            log.debug("the bus did not hear", extra={"action": "ledger_unheard", "why": outcome.message})
        elif outcome is not None:
            raise outcome
