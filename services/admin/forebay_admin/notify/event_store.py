"""Events and how they were told, to be looked at. Each function works on the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, func, literal, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import BadInput, NotFound
from forebay_admin.notify.delivery_rules import State
from forebay_admin.notify.tables import event_deliveries, event_subscriptions, events
from forebay_admin.notify.wording import Event
from forebay_admin.tables import users

MOST_RETRIED = 10_000


@dataclass(frozen=True, slots=True)
class Delivery:
    event_id: str
    subscription_id: str
    channel: str
    address: str
    state: State
    attempts: int
    due_at: datetime
    ended_at: datetime | None
    said: str


async def newest_events(
    connection: AsyncConnection, *, kind: str, state: State | None, user_id: str, before: int, limit: int
) -> list[Event]:
    """`kind`: one, a group such as `budget.*`, or empty. `user_id`: whose own affairs, or empty. `before`: a number or 0."""
    query = _query().order_by(events.c.number.desc()).limit(limit)
    if kind.endswith(".*"):
        query = query.where(events.c.kind.startswith(kind.removesuffix("*"), autoescape=True))
    elif kind not in ("", "*"):
        query = query.where(events.c.kind == kind)
    if user_id:
        query = query.where(events.c.user_id == user_id)
    if before:
        query = query.where(events.c.number < before)
    if state is not None:
        delivery = and_(event_deliveries.c.event_id == events.c.id, event_deliveries.c.state == state.value)
        query = query.where(select(literal(1)).where(delivery).exists())
    return [_event(row) for row in await connection.execute(query)]


async def event_beginning_with(connection: AsyncConnection, text: str, user_id: str) -> Event:
    """Raises BadInput, NotFound."""
    query = _query().where(events.c.id.startswith(text, autoescape=True)).limit(2)
    if user_id:
        query = query.where(events.c.user_id == user_id)
    found = [_event(row) for row in await connection.execute(query)] if text else []
    if len(found) > 1 and all(one.id != text for one in found):
        raise BadInput(f"Several events begin with {text[:64]}: give more of it.")
    if not found:
        raise NotFound(f"There is no event {text[:64]}; `forebay notify events` shows the newest.")
    return next((one for one in found if one.id == text), found[0])


async def deliveries_of(
    connection: AsyncConnection, event_ids: Sequence[str], *, user_id: str = ""
) -> dict[str, list[Delivery]]:
    """By event. `user_id`: only what that user, or whom the event is about, is told; empty: all."""
    query = (
        select(event_deliveries, event_subscriptions.c.channel, event_subscriptions.c.address)
        .join_from(event_deliveries, event_subscriptions)
        .where(event_deliveries.c.event_id.in_(event_ids))
        .order_by(event_deliveries.c.id)
    )
    if user_id:
        mine = event_subscriptions.c.user_id == user_id
        query = query.where(
            or_(mine, and_(event_subscriptions.c.channel == "mail", event_subscriptions.c.address == ""))
        )
    found: dict[str, list[Delivery]] = {}
    for row in await connection.execute(query):
        found.setdefault(row.event_id, []).append(
            Delivery(
                row.event_id,
                row.subscription_id,
                row.channel,
                row.address,
                State(row.state),
                row.attempts,
                row.due_at,
                row.ended_at,
                row.said,
            )
        )
    return found


async def retry_dead(connection: AsyncConnection, *, event_id: str, subscription_id: str, now: datetime) -> int:
    """How many are told anew. Empty is all."""
    retried = await connection.execute(
        text(_RETRY), {"event": event_id, "subscription": subscription_id, "now": now, "most": MOST_RETRIED}
    )
    if retried.rowcount:
        await connection.execute(text(_AT_ONCE), {"subscription": subscription_id, "now": now})
    return retried.rowcount


_RETRY = """
    UPDATE admin.event_deliveries SET state = 'waiting', since = :now, due_at = :now, attempts = 0, ended_at = NULL
    WHERE id IN (
        SELECT id FROM admin.event_deliveries
        WHERE state = 'dead' AND :event IN ('', event_id) AND :subscription IN ('', subscription_id)
        ORDER BY id LIMIT :most
    )
"""
_AT_ONCE = "UPDATE admin.event_subscriptions SET retry_at = :now WHERE :subscription IN ('', id) AND retry_at > :now"


def _query() -> Any:
    return select(events, func.coalesce(users.c.name, "").label("user_name")).join_from(
        events, users, users.c.id == events.c.user_id, isouter=True
    )


def _event(row: Any) -> Event:
    return Event(row.id, row.number, row.kind, row.subject, row.at, row.body, row.user_name)
