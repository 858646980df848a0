"""Charging balances for ledger rows, in the transaction that enters the rows: so each is charged once, whatever crashes, and
one that comes again is not new."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import chain, repeat
from typing import Protocol

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay_admin.money.balance_store import open_accounts, parents_of_groups
from forebay_admin.money.balances import Payers
from forebay_admin.money.price_book import PriceBook
from forebay_admin.tables import balance_charges


class Charged(Protocol):
    """Of a row of the ledger."""

    @property
    def user_id(self) -> str: ...
    @property
    def group_id(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def started_at(self) -> datetime: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def cached_prompt_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def cost_micros(self) -> int | None: ...


class Charges:
    def __init__(self, book: Callable[[], PriceBook]) -> None:
        self._book = book

    async def enter(self, connection: AsyncConnection, rows: Sequence[Charged]) -> None:
        """`rows` are new in this transaction."""
        accounts = await open_accounts(connection)
        if not accounts or not rows:
            return
        sums = sum_up(rows, Payers(accounts, await parents_of_groups(connection)), self._book())
        if not sums:
            return
        # In one order, so that two replicas that charge the same accounts wait for each other and not in a ring.
        statement = insert(balance_charges).values(
            [
                {
                    "account_id": account_id,
                    "hour": hour,
                    "requests": requests,
                    "cost_micros": cost,
                    "counted_micros": counted,
                }
                for (account_id, hour), (requests, cost, counted) in sorted(sums.items())
            ]
        )
        columns = balance_charges.c
        await connection.execute(
            statement.on_conflict_do_update(
                index_elements=[columns.account_id, columns.hour],
                set_={
                    name: columns[name] + statement.excluded[name]
                    for name in ("requests", "cost_micros", "counted_micros")
                },
            )
        )


def sum_up(
    rows: Sequence[Charged], payers: Payers, book: PriceBook
) -> dict[tuple[str, datetime], tuple[int, int, int]]:
    """(account, hour of the start) → (requests that were charged, what they cost, what the scheduler counts for them)."""
    sums: dict[tuple[str, datetime], tuple[int, int, int]] = {}
    for row in rows:
        around = list(payers.around(row.user_id, row.group_id, row.started_at))
        if not around:
            continue
        counted = book.counted(
            row.model,
            row.started_at,
            row.outcome,
            row.prompt_tokens,
            row.cached_prompt_tokens,
            row.completion_tokens,
        )
        hour = row.started_at.replace(minute=0, second=0, microsecond=0)
        # The closest one pays; the scheduler counts it for all that are around.
        for account, cost in zip(around, chain((row.cost_micros,), repeat(None)), strict=False):
            if cost is None and not counted:
                continue
            requests, charged, so_far = sums.get((account.id, hour), (0, 0, 0))
            sums[account.id, hour] = requests + (cost is not None), charged + (cost or 0), so_far + counted
    return sums
