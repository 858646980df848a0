"""Keeps the ledger summed up: whatever rows were entered in is made anew once it is over. One replica at a time does it,
whichever comes first; what each of them does it does again without harm."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby

from sqlalchemy.exc import DBAPIError

from forebay.clock import Clock
from forebay.errors import Unavailable
from forebay.metrics import Metrics
from forebay_admin.ledger.rollup_rules import due
from forebay_admin.ledger.rollup_store import RollupStore
from forebay_admin.ledger.usage_sums import Span

log = logging.getLogger(__name__)

_LOOK_S = 5.0
_MENDED_DAYS = 2
_MEND_EVERY = timedelta(hours=6)
_MOST_AT_ONCE = 60
"""Minutes, hours or days in one transaction, all of one hour, day or year."""


class Rollups:
    def __init__(self, store: RollupStore, clock: Clock, metrics: Metrics) -> None:
        self._store = store
        self._clock = clock
        made = metrics.counter(
            "forebay_admin_usage_sums", "Minutes, hours and days of the ledger summed up.", ("span",)
        )
        self._made = {span: made.child(span.value) for span in Span}
        self._mended = metrics.counter(
            "forebay_admin_usage_minutes_mended", "Minutes whose sum did not agree with the ledger's rows."
        ).child()
        self._waiting = 0
        metrics.gauge(
            "forebay_admin_usage_touched",
            "Minutes, hours and days that wait to be summed up, those that are not over yet among them.",
            (),
            lambda: [((), self._waiting)],
        )
        self._mend_at = datetime.min.replace(tzinfo=UTC)
        self._at_once = _MOST_AT_ONCE

    async def keep(self) -> None:
        """For ever."""
        while True:
            try:
                if self._now() >= self._mend_at:
                    await self.mend()
                await self.sum_up()
            except Unavailable as error:
                log.debug("sums wait", extra={"action": "sums_wait", "why": error.message})
            except DBAPIError as error:
                log.error("sums not made", extra={"action": "sums_stuck", "why": str(error.orig)})
            await asyncio.sleep(_LOOK_S)

    async def sum_up(self) -> None:
        """All that can be now: minutes, then the hours that only waited for them, then days. Raises Unavailable."""
        for span in Span:
            touched = await self._store.touched()
            self._waiting = len(touched)
            for some in _together(span, due(touched, self._now())[span], self._at_once):
                await self._make(span, some)

    async def mend(self) -> None:
        """The last days' minutes, against the ledger. Raises Unavailable."""
        now = self._now()
        today = Span.DAY.of(now)
        for days in range(_MENDED_DAYS):
            since = today - timedelta(days=days)
            until = min(since + timedelta(days=1), Span.MINUTE.of(now) - timedelta(minutes=1))
            mended = await self._store.mend(since, until) if since < until else 0
            if mended:
                log.warning(
                    "sums did not agree with the ledger, making them again",
                    extra={"action": "sums_mended", "day": str(since.date()), "minutes": mended},
                )
            self._mended.value += mended
        self._mend_at = now + _MEND_EVERY

    async def _make(self, span: Span, some: Sequence[datetime]) -> None:
        try:
            if await self._store.sum_up(span, some):
                self._made[span].value += len(some)
        except Unavailable:
            self._at_once = max(1, self._at_once // 2)  # so much may have taken too long
            raise
        self._at_once = min(_MOST_AT_ONCE, self._at_once + 1)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


def _together(span: Span, at: Sequence[datetime], most: int) -> Iterator[Sequence[datetime]]:
    """What lies near each other, so that each transaction looks at little of the ledger."""
    within = {Span.MINUTE: Span.HOUR, Span.HOUR: Span.DAY, Span.DAY: Span.DAY}[span]
    for _, near in groupby(at, within.of):
        some = list(near)
        for first in range(0, len(some), most):
            yield some[first : first + most]
