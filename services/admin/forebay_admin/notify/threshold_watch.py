"""Watches budgets and balances for thresholds, as the ledger grows. Which of them rows may have moved is known in memory,
and all are looked at now and then: what a replica knew that died is found by another. That each threshold is told once is
decided in Postgres, in the transaction that tells it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from typing import Protocol

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import Unavailable
from forebay_admin.money.balance_store import balances_of, newest_top_ups, open_accounts
from forebay_admin.notify.kinds import Kind
from forebay_admin.notify.outbox import Outbox
from forebay_admin.notify.threshold_events import amount_of, balance_body, budget_body, span_named
from forebay_admin.notify.threshold_store import forget_gone, mark, marked, thresholds_of
from forebay_admin.notify.thresholds import LOW, USUAL, low, reached
from forebay_admin.people.group_store import read_groups
from forebay_admin.people.groups import ancestors
from forebay_admin.quotas.quota_store import read_budgets, subjects_with
from forebay_admin.quotas.quotas import Budget, Standing, Subject, SubjectKind
from forebay_admin.quotas.spending import standings
from forebay_admin.tables import keys

log = logging.getLogger(__name__)

LOOK_S = 2.0
_ALL_EVERY_S = 300.0
_MOST_COUNTED = 100
"""Budgets in one query; fewer when that is too slow."""
_REST = 20.0
_LONGEST_REST_S = 600.0
"""A look that took long is followed by a rest of so many times as long, so that counting takes a twentieth of the time; more
only where a look takes longer than half a minute."""


class Used(Protocol):
    """Of a row of the ledger."""

    @property
    def user_id(self) -> str: ...
    @property
    def key_id(self) -> str: ...
    @property
    def group_id(self) -> str: ...


Touched = set[tuple[str, str, str]]
"""User, key, group."""
_whose: Callable[[Used], tuple[str, str, str]] = attrgetter("user_id", "key_id", "group_id")
"""In C: it is called for each row of the ledger."""


@dataclass(frozen=True, slots=True)
class Open:
    """A budget of which something is still to be told in this period."""

    kind: SubjectKind
    subject_id: str
    budget: Budget
    span: str
    percents: tuple[int, ...]


class ThresholdWatch:
    def __init__(self, database: Database, outbox: Outbox, clock: Clock, *, look_s: float = LOOK_S) -> None:
        self._database = database
        self._outbox = outbox
        self._clock = clock
        self._look_s = look_s
        self._touched: Touched = set()
        self._all_at = 0.0
        self._at_once = _MOST_COUNTED

    def entered(self, rows: Iterable[Used]) -> None:
        """Rows of the ledger that are committed."""
        self._touched.update(map(_whose, rows))

    async def keep(self) -> None:
        """For ever."""
        while True:
            began = self._clock.monotonic()
            try:
                if began >= self._all_at:
                    await self.look_at_all()
                    self._all_at = began + _ALL_EVERY_S
                elif self._touched:
                    await self.look()
            except Unavailable as error:
                log.debug("thresholds wait", extra={"action": "thresholds_wait", "why": error.message})
            except DBAPIError as error:
                log.error("thresholds not told", extra={"action": "thresholds_stuck", "why": str(error.orig)})
            took_s = self._clock.monotonic() - began
            await asyncio.sleep(max(self._look_s, min(_LONGEST_REST_S, _REST * took_s)))

    async def look_at_all(self) -> None:
        """Raises Unavailable."""
        self._touched.clear()
        await self._look(None)
        async with self._database.writing() as connection:
            await forget_gone(connection)

    async def look(self) -> None:
        """At those for whom rows came in. Raises Unavailable."""
        touched, self._touched = self._touched, set()
        try:
            await self._look(touched)
        except BaseException:
            self._touched |= touched
            raise

    async def _look(self, touched: Touched | None) -> None:
        now = self._now()
        async with self._database.reading() as connection:
            wanted = await _wanted(connection, touched) if touched is not None else None
            left = await _open(connection, wanted, now)
        for kind in SubjectKind:
            mine = [one for one in left if one.kind is kind]
            while mine:
                some, mine = mine[: self._at_once], mine[self._at_once :]
                await self._judge(some, now)
        await self._judge_balances(now)

    async def _judge(self, some: Sequence[Open], now: datetime) -> None:
        """All of one kind."""
        held: dict[tuple[SubjectKind, str], list[Budget]] = {}
        for one in some:
            held.setdefault((one.kind, one.subject_id), []).append(one.budget)
        async with self._database.reading() as connection:
            counted = await standings(connection, held, now)
        if len(some) > 1 and counted[some[0].budget.id].spent is None:  # too many for the time that there is
            self._at_once = half = len(some) // 2
            await self._judge(some[:half], now)
            await self._judge(some[half:], now)
            return
        self._at_once = min(_MOST_COUNTED, self._at_once + 1)
        for one in some:
            standing = counted[one.budget.id]
            used_up = reached(standing.spent or 0, amount_of(standing), one.percents)
            if used_up:
                await self._tell(one, standing, used_up, now)

    async def _tell(self, one: Open, standing: Standing, percents: Sequence[int], now: datetime) -> None:
        async with self._database.writing() as connection:
            found = await subjects_with(connection, {one.kind: [one.subject_id]})
            subject = found.get((one.kind, one.subject_id))
            if subject is None:
                return
            user_id = await _owner(connection, subject)
            for percent in percents:
                if await mark(connection, one.budget.id, one.span, percent, now):
                    body = budget_body(subject, standing, percent)
                    await self._outbox.put(connection, Kind.BUDGET_THRESHOLD, str(subject), body, user_id=user_id)

    async def _judge_balances(self, now: datetime) -> None:
        async with self._database.reading() as connection:
            accounts = await open_accounts(connection)
            if not accounts:
                return
            newest = await newest_top_ups(connection, list(accounts))
            told = await marked(connection, {name: str(posting) for name, (posting, _) in newest.items()})
            left = [accounts[name] for name in newest if len(told.get(name, ())) < len(LOW)]
            balances = await balances_of(connection, left)
        for balance in balances:
            posting, amount = newest[balance.account.id]
            percents = [p for p in low(balance.left_micros, amount) if p not in told.get(balance.account.id, ())]
            if not percents:
                continue
            async with self._database.writing() as connection:
                for percent in percents:
                    if await mark(connection, balance.account.id, str(posting), percent, now):
                        await self._outbox.put(
                            connection,
                            Kind.BALANCE_LOW,
                            str(balance.account),
                            balance_body(balance, amount, percent),
                            user_id=balance.account.user_id or "",
                        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


async def _wanted(connection: AsyncConnection, touched: Touched) -> Mapping[SubjectKind, Sequence[str]]:
    """Whose budgets such rows count in."""
    groups = await read_groups(connection)
    around = {above.id for group_id in {group for _, _, group in touched} for above in ancestors(groups, group_id)}
    return {
        SubjectKind.USER: sorted({user for user, _, _ in touched}),
        SubjectKind.KEY: sorted({key for _, key, _ in touched}),
        SubjectKind.GROUP: sorted(around),
    }


async def _open(
    connection: AsyncConnection, wanted: Mapping[SubjectKind, Sequence[str]] | None, now: datetime
) -> list[Open]:
    held = await read_budgets(connection, wanted)
    budgets = [(kind, subject_id, budget) for (kind, subject_id), some in held.items() for budget in some]
    if not budgets:
        return []
    said = await thresholds_of(connection, [budget.id for _, _, budget in budgets])
    spans = {budget.id: span_named(budget, now) for _, _, budget in budgets}
    told = await marked(connection, spans)
    found = []
    for kind, subject_id, budget in budgets:
        percents = tuple(p for p in said.get(budget.id, USUAL) if p not in told.get(budget.id, ()))
        if percents:
            found.append(Open(kind, subject_id, budget, spans[budget.id], percents))
    return found


async def _owner(connection: AsyncConnection, subject: Subject) -> str:
    """Whose own affair it is: nobody's, if it is a group's."""
    match subject.kind:
        case SubjectKind.USER:
            return subject.id
        case SubjectKind.KEY:
            return str(await connection.scalar(select(keys.c.user_id).where(keys.c.public_id == subject.id)) or "")
        case SubjectKind.GROUP:
            return ""
