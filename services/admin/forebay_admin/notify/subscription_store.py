"""Subscriptions in Postgres. Each function works on the caller's transaction. Where a webhook is, and what it is signed
with, is sealed for its row: paths and queries of webhooks are secrets too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import NotFound
from forebay.sealed import NotSealed, Seal
from forebay_admin.notify.delivery_rules import State
from forebay_admin.notify.subscriptions import Channel, Order, Subscription
from forebay_admin.notify.tables import event_deliveries, event_subscriptions
from forebay_admin.tables import users

PURPOSE = "event-subscriptions"
"""Of the Seal."""


def seal_order(seal: Seal, order: Order) -> bytes | None:
    if order.channel is not Channel.WEBHOOK:
        return None
    return seal.close(orjson.dumps({"url": order.url, "secret": order.secret}), order.id.encode())


def open_sealed(seal: Seal, subscription_id: str, sealed: bytes | None) -> Mapping[str, str] | None:
    """`url` and `secret`; None: it cannot be opened with this key."""
    try:
        opened: Mapping[str, str] = orjson.loads(seal.open(sealed or b"", subscription_id.encode()))
    except NotSealed:
        return None
    return opened


async def add_subscription(
    connection: AsyncConnection, order: Order, sealed: bytes | None, *, user_id: str, created_by: str, now: datetime
) -> None:
    await connection.execute(
        insert(event_subscriptions).values(
            id=order.id,
            channel=order.channel.value,
            address=order.address,
            sealed=sealed,
            kinds=list(order.kinds),
            user_id=user_id,
            created_by=created_by,
            created_at=now,
        )
    )


async def remove_subscription(connection: AsyncConnection, subscription_id: str) -> None:
    """With what it was still to be told."""
    await connection.execute(delete(event_subscriptions).where(event_subscriptions.c.id == subscription_id))


async def count_subscriptions(connection: AsyncConnection, user_id: str = "") -> int:
    """Of one user, or all."""
    query = select(func.count()).select_from(event_subscriptions)
    if user_id:
        query = query.where(event_subscriptions.c.user_id == user_id)
    return int(await connection.scalar(query) or 0)


async def list_subscriptions(connection: AsyncConnection, user_id: str = "") -> Sequence[Subscription]:
    """Those that are about one user only, or all; the oldest first."""
    query = _query().order_by(event_subscriptions.c.created_at, event_subscriptions.c.id)
    if user_id:
        query = query.where(event_subscriptions.c.user_id == user_id)
    return [_subscription(row) for row in await connection.execute(query)]


async def subscription_with_id(connection: AsyncConnection, subscription_id: str) -> Subscription:
    """Raises NotFound."""
    row = (await connection.execute(_query().where(event_subscriptions.c.id == subscription_id))).first()
    if row is None:
        raise NotFound(
            f"There is no subscription {subscription_id[:64]}; `forebay notify list` shows those that there are."
        )
    return _subscription(row)


def _query() -> Any:
    def number(state: State) -> Any:
        return (
            select(func.count())
            .where(
                event_deliveries.c.subscription_id == event_subscriptions.c.id,
                event_deliveries.c.state == state.value,
            )
            .scalar_subquery()
        )

    return select(
        event_subscriptions,
        func.coalesce(users.c.name, "").label("user_name"),
        number(State.WAITING).label("waiting"),
        number(State.DEAD).label("dead"),
    ).join_from(event_subscriptions, users, users.c.id == event_subscriptions.c.user_id, isouter=True)


def _subscription(row: Any) -> Subscription:
    return Subscription(
        row.id,
        Channel(row.channel),
        row.address,
        tuple(row.kinds),
        row.user_id,
        row.user_name,
        row.created_by,
        row.created_at,
        row.delivered,
        row.delivered_at,
        row.failing_since,
        row.last_error,
        row.waiting,
        row.dead,
    )
