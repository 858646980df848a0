"""Carries over what is left of budgets, once their periods are over, and tells the scheduler. Any replica may do it; what
one has done the next one finds done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import Unavailable
from forebay_admin.changes import Changes
from forebay_admin.quotas.carry import Turn, left_of, turn_of
from forebay_admin.quotas.quota_store import carrying_budgets, keep_carried
from forebay_admin.quotas.quotas import Budget, SubjectKind
from forebay_admin.quotas.spending import Asked, count

log = logging.getLogger(__name__)

EVERY_S = 10.0
AGAIN = timedelta(minutes=5)
"""Between two counts of what was counted already."""
_AT_ONCE = 500
"""Budgets: counting those must be done in `spending.COUNT_S`."""
_KEPT_AT_ONCE = 100
"""Budgets in one change: all others wait behind it, a revocation among them."""


@dataclass(frozen=True, slots=True)
class _Due:
    kind: SubjectKind
    subject_id: str
    budget: Budget
    turn: Turn


class Carrying:
    def __init__(self, database: Database, changes: Changes, clock: Clock) -> None:
        self._database = database
        self._changes = changes
        self._clock = clock
        self._counted_again: datetime | None = None

    async def keep(self) -> None:
        """For ever."""
        while True:
            try:
                await self.once()
            except Unavailable as error:
                log.debug("nothing is carried over", extra={"action": "carry_wait", "why": error.message})
            except DBAPIError as error:  # the rest of admin goes on whatever Postgres says to this
                log.error("nothing is carried over", extra={"action": "carry_stuck", "why": str(error.orig)})
            await asyncio.sleep(EVERY_S)

    async def once(self) -> None:
        """Raises Unavailable."""
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        is_time = self._counted_again is None or not timedelta(0) <= now - self._counted_again < AGAIN
        if is_time:
            self._counted_again = now
        async with self._database.reading() as connection:
            due = [one for one in await _due(connection, now) if is_time or one.turn.is_first]
            moved = [one for some in _portions(due) for one in await _counted(connection, some)]
        for first in range(0, len(moved), _KEPT_AT_ONCE):
            await self._keep(moved[first : first + _KEPT_AT_ONCE], now)
        if moved:
            log.info("budgets carried over", extra={"action": "budgets_carried", "budgets": len(moved)})

    async def _keep(self, moved: Sequence[tuple[Budget, _Due]], now: datetime) -> None:
        async with self._changes.make(self._database) as change:
            # Whoever waited for the counter's lock finds what the replica before has done.
            due = await _due(change.connection, now, [after.budget.id for _, after in moved])
            still = {one.budget.id: one.budget for one in due}
            for before, after in moved:
                if still.get(after.budget.id) == before:
                    await keep_carried(change, after.kind, after.subject_id, after.budget)


async def _due(connection: AsyncConnection, now: datetime, ids: Sequence[str] | None = None) -> list[_Due]:
    return [
        _Due(kind, subject_id, budget, turn)
        for kind, subject_id, budget in await carrying_budgets(connection, ids)
        if (turn := turn_of(budget.period, budget.time_zone, budget.amount, budget.carried, now)) is not None
    ]


def _portions(due: Sequence[_Due]) -> Iterable[list[_Due]]:
    for kind in SubjectKind:
        of_kind = [one for one in due if one.kind is kind]
        for first in range(0, len(of_kind), _AT_ONCE):
            yield of_kind[first : first + _AT_ONCE]


async def _counted(connection: AsyncConnection, due: Sequence[_Due]) -> list[tuple[Budget, _Due]]:
    """Those whose budget is another one now, each as it was and as it is; of one kind."""
    spent = await count(connection, due[0].kind, [Asked(one.subject_id, one.budget, one.turn.over) for one in due])
    if spent is None:
        return []
    found = []
    for one in due:
        most = one.budget.carry_most or 0
        carried = left_of(one.turn, sum(spent[one.budget.id].values()), most)
        if carried != one.budget.carried:
            found.append((one.budget, replace(one, budget=replace(one.budget, carried=carried))))
    return found
