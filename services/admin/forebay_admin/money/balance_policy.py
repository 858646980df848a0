"""Balances as the scheduler is told of them: a budget of money for ever, beside those that the user or group has."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.wire.v1 import admin_pb2
from forebay_admin.money.balance_store import balances_of, open_accounts
from forebay_admin.money.balances import as_budget
from forebay_admin.wire_forms import moment_us


async def tell_balances(connection: AsyncConnection, update: admin_pb2.PolicyUpdate, now: datetime) -> None:
    """Adds them to those users and groups of the update who pay in advance."""
    accounts = await open_accounts(connection)
    if not accounts:
        return
    by_user = {account.user_id: account for account in accounts.values()}
    by_group = {account.group_id: account for account in accounts.values()}
    told = [
        *((user.limits, by_user[user.user_id]) for user in update.users if user.user_id in by_user),
        *((group.limits, by_group[group.group_id]) for group in update.groups if group.group_id in by_group),
    ]
    balances = await balances_of(connection, [account for _, account in told])
    for (limits, _), balance in zip(told, balances, strict=True):
        budget = as_budget(balance)
        limits.budgets.add(
            id=budget.id,
            unit=admin_pb2.BUDGET_UNIT_MONEY,
            amount=budget.amount,
            spent=budget.spent,
            spent_at_us=moment_us(now),
        )
