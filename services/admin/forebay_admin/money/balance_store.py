"""Accounts, postings and charges in Postgres. Each function works on the caller's transaction. A balance is told to the
scheduler with the user or group that it is for: it is their version that moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import AlreadyExists, NotFound
from forebay_admin.changes import Change
from forebay_admin.money.balances import Account, Balance, Posting, PostingKind
from forebay_admin.tables import balance_accounts, balance_charges, balance_postings, groups, is_one_of, users

_OPEN = balance_accounts.c.closed_at.is_(None)


async def open_accounts(connection: AsyncConnection) -> dict[str, Account]:
    """By id."""
    return {row.id: _account(row) for row in await connection.execute(select(balance_accounts).where(_OPEN))}


async def account_of(connection: AsyncConnection, *, user_id: str | None, group_id: str | None) -> Account | None:
    """The one that is open."""
    of = balance_accounts.c.user_id == user_id if user_id is not None else balance_accounts.c.group_id == group_id
    row = (await connection.execute(select(balance_accounts).where(_OPEN, of))).first()
    return _account(row) if row is not None else None


async def open_account(change: Change, account: Account) -> None:
    """Raises AlreadyExists."""
    if await account_of(change.connection, user_id=account.user_id, group_id=account.group_id) is not None:
        raise AlreadyExists(f"The {account} pays in advance already; top the balance up.")
    await change.connection.execute(
        insert(balance_accounts).values(
            id=account.id,
            user_id=account.user_id,
            group_id=account.group_id,
            name=account.name,
            created_by=account.created_by,
            opened_at=account.opened_at,
        )
    )
    await touch(change, account)


async def close_account(change: Change, account: Account, now: datetime) -> None:
    await change.connection.execute(
        update(balance_accounts).where(balance_accounts.c.id == account.id).values(closed_at=now)
    )
    await touch(change, account)


async def touch(change: Change, account: Account) -> None:
    if account.user_id is not None:
        statement = update(users).where(users.c.id == account.user_id).values(terms_version=change.version)
    else:
        statement = update(groups).where(groups.c.id == account.group_id).values(version=change.version)
    await change.connection.execute(statement)


async def post(change: Change, posting: Posting) -> int:
    """Its id."""
    made = await change.connection.scalar(
        insert(balance_postings)
        .values(
            account_id=posting.account_id,
            kind=posting.kind.value,
            amount_micros=posting.amount_micros,
            reference=posting.reference,
            note=posting.note,
            created_by=posting.created_by,
            at=posting.at,
        )
        .returning(balance_postings.c.id)
    )
    return int(made or 0)


async def posting_with(connection: AsyncConnection, account_id: str, reference: str) -> Posting | None:
    query = select(balance_postings).where(
        balance_postings.c.account_id == account_id, balance_postings.c.reference == reference
    )
    row = (await connection.execute(query)).first()
    return _posting(row) if row is not None else None


async def newest_postings(connection: AsyncConnection, account_id: str, limit: int) -> list[Posting]:
    query = (
        select(balance_postings)
        .where(balance_postings.c.account_id == account_id)
        .order_by(balance_postings.c.id.desc())
        .limit(limit)
    )
    return [_posting(row) for row in await connection.execute(query)]


async def newest_top_ups(connection: AsyncConnection, account_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Account → the id and the amount of what was paid in last."""
    columns = balance_postings.c
    newest = (
        select(func.max(columns.id))
        .where(is_one_of(columns.account_id, account_ids), columns.kind == PostingKind.TOP_UP.value)
        .group_by(columns.account_id)
    )
    query = select(columns.account_id, columns.id, columns.amount_micros).where(columns.id.in_(newest))
    return {row.account_id: (row.id, row.amount_micros) for row in await connection.execute(query)}


async def newest_charges(connection: AsyncConnection, account_id: str, limit: int) -> list[Any]:
    """Rows of (hour, requests, cost_micros), the newest hour first."""
    query = (
        select(balance_charges.c.hour, balance_charges.c.requests, balance_charges.c.cost_micros)
        .where(balance_charges.c.account_id == account_id)
        .order_by(balance_charges.c.hour.desc())
        .limit(limit)
    )
    return list(await connection.execute(query))


async def balances_of(connection: AsyncConnection, accounts: Sequence[Account]) -> list[Balance]:
    """In their order."""
    ids = [account.id for account in accounts]
    paid = await _sums(connection, balance_postings, "amount_micros", ids)
    charged = await _sums(connection, balance_charges, "cost_micros", ids)
    counted = await _sums(connection, balance_charges, "counted_micros", ids)
    requests = await _sums(connection, balance_charges, "requests", ids)
    return [
        Balance(
            account,
            paid.get(account.id, 0),
            charged.get(account.id, 0),
            counted.get(account.id, 0),
            requests.get(account.id, 0),
        )
        for account in accounts
    ]


async def told_micros(connection: AsyncConnection) -> dict[str, int]:
    """Account → by how much its charges and the scheduler's count differed when the scheduler was told last."""
    query = select(balance_accounts.c.id, balance_accounts.c.told_micros).where(_OPEN)
    return {row.id: int(row.told_micros) for row in await connection.execute(query)}


async def note_told(change: Change, balance: Balance) -> None:
    await change.connection.execute(
        update(balance_accounts)
        .where(balance_accounts.c.id == balance.account.id)
        .values(told_micros=balance.charged_micros - balance.counted_micros)
    )
    await touch(change, balance.account)


async def all_accounts(connection: AsyncConnection, *, closed_too: bool) -> list[Account]:
    query = select(balance_accounts).order_by(func.lower(balance_accounts.c.name), balance_accounts.c.opened_at)
    return [_account(row) for row in await connection.execute(query if closed_too else query.where(_OPEN))]


async def account_with_id(connection: AsyncConnection, account_id: str) -> Account:
    """Raises NotFound."""
    row = (await connection.execute(select(balance_accounts).where(balance_accounts.c.id == account_id))).first()
    if row is None:
        raise NotFound(f"There is no balance {account_id}; `forebay balance list` shows those that there are.")
    return _account(row)


async def parents_of_groups(connection: AsyncConnection) -> dict[str, str | None]:
    """Group → the group around it."""
    return {row.id: row.parent_id for row in await connection.execute(select(groups.c.id, groups.c.parent_id))}


async def groups_of_users(connection: AsyncConnection, user_ids: Sequence[str]) -> dict[str, str]:
    rows = await connection.execute(select(users.c.id, users.c.group_id).where(is_one_of(users.c.id, user_ids)))
    return {row.id: row.group_id for row in rows}


async def _sums(connection: AsyncConnection, table: Any, column: str, ids: Sequence[str]) -> Mapping[str, int]:
    query = (
        select(table.c.account_id, func.sum(table.c[column]).label("total"))
        .where(is_one_of(table.c.account_id, ids))
        .group_by(table.c.account_id)
    )
    return {row.account_id: int(row.total) for row in await connection.execute(query)}


def _account(row: Any) -> Account:
    return Account(row.id, row.user_id, row.group_id, row.name, row.created_by, row.opened_at, row.closed_at)


def _posting(row: Any) -> Posting:
    return Posting(
        row.id,
        row.account_id,
        PostingKind(row.kind),
        int(row.amount_micros),
        row.reference,
        row.note,
        row.created_by,
        row.at,
    )
