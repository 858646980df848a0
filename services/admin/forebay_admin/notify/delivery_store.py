"""Deliveries in Postgres: taken by one replica at a time, for a while; noted when they were tried; given up, tried anew and
forgotten. Every method raises Unavailable while Postgres is away."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text

from forebay.database import Database
from forebay.sealed import Seal
from forebay_admin.notify.delivery_rules import Next, State
from forebay_admin.notify.subscription_store import open_sealed
from forebay_admin.notify.subscriptions import Channel
from forebay_admin.notify.wording import Event

MOST_TAKEN = 10
"""Of one subscription, in a row."""
TAKEN_FOR = timedelta(seconds=150)
"""Longer than that many tries may take; then whoever took them is taken for dead, and they are sent again."""
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Taken:
    id: int
    subscription_id: str
    channel: Channel
    address: str
    """Where a mail goes: what whom it is about is called, where the subscription names nobody."""
    sealed: Mapping[str, str] | None
    """Of a webhook: `url` and `secret`; None: they cannot be opened."""
    event: Event
    attempts: int
    """This one included."""
    since: datetime
    failures: int

    def __repr__(self) -> str:
        return f"Taken({self.id}, {self.subscription_id}, {self.event.id})"


class DeliveryStore:
    def __init__(self, database: Database, seal: Seal) -> None:
        self._database = database
        self._seal = seal

    async def take(self, now: datetime, busy: Collection[str]) -> dict[str, list[Taken]]:
        """What is due, by subscription, in the order in which it happened; nothing of those that are `busy`. Of one that
        fails, a single one to try it with."""
        async with self._database.writing() as connection:
            rows = await connection.execute(
                text(_TAKE), {"now": now, "until": now + TAKEN_FOR, "busy": list(busy), "most": MOST_TAKEN}
            )
            found: dict[str, list[Taken]] = {}
            for row in sorted(rows, key=lambda row: row.delivery_id):
                found.setdefault(row.subscription_id, []).append(self._taken(row))
            spare = {name: some[1:] for name, some in found.items() if some[0].failures}
            if ids := [taken.id for some in spare.values() for taken in some]:
                await connection.execute(text(_PUT_BACK), {"ids": ids, "now": now})
        return {name: some[:1] if name in spare else some for name, some in found.items()}

    async def note(self, taken: Taken, outcome: Next, said: str, now: datetime) -> None:
        """How a try went."""
        is_over = outcome.state is not State.WAITING
        async with self._database.writing() as connection:
            await connection.execute(
                text(_NOTE),
                {
                    "id": taken.id,
                    "state": outcome.state.value,
                    "due_at": outcome.due_at,
                    "ended_at": now if is_over else None,
                    "said": said[:_LONGEST],
                    "attempts": taken.attempts,
                },
            )
            await connection.execute(
                text(_NOTE_SUBSCRIPTION),
                {
                    "id": taken.subscription_id,
                    "delivered": int(outcome.state is State.DELIVERED),
                    "failures": outcome.failures,
                    "is_worse": outcome.failures > taken.failures,
                    "retry_at": outcome.retry_at,
                    "said": said[:_LONGEST],
                    "now": now,
                },
            )

    async def put_back(self, some: Sequence[Taken], now: datetime) -> None:
        """They were taken and not tried."""
        if some:
            async with self._database.writing() as connection:
                await connection.execute(text(_PUT_BACK), {"ids": [taken.id for taken in some], "now": now})

    async def forget(self, before: datetime) -> int:
        """Some events of before then, with how they were told."""
        async with self._database.writing() as connection:
            return (await connection.execute(text(_FORGET), {"before": before})).rowcount

    async def numbers(self) -> dict[str, int]:
        """State → deliveries, of those that were not delivered."""
        async with self._database.reading() as connection:
            return {row.state: row.n for row in await connection.execute(text(_COUNT))}

    def _taken(self, row: Any) -> Taken:
        channel = Channel(row.channel)
        is_webhook = channel is Channel.WEBHOOK
        return Taken(
            row.delivery_id,
            row.subscription_id,
            channel,
            row.address or row.user_name,
            open_sealed(self._seal, row.subscription_id, row.sealed) if is_webhook else None,
            Event(row.id, row.number, row.kind, row.subject, row.at, row.body, row.user_name),
            row.attempts,
            row.since,
            row.failures,
        )


_TAKE = """
    WITH ready AS (
        SELECT due.id FROM admin.event_subscriptions AS subscription CROSS JOIN LATERAL (
            SELECT id FROM admin.event_deliveries
            WHERE subscription_id = subscription.id AND state = 'waiting' AND due_at <= :now
            ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED
        ) AS due
        WHERE subscription.retry_at <= :now AND subscription.id <> ALL (CAST(:busy AS text[]))
    ), taken AS (
        UPDATE admin.event_deliveries AS delivery SET due_at = :until, attempts = attempts + 1
        FROM ready WHERE delivery.id = ready.id
        RETURNING delivery.id AS delivery_id, delivery.subscription_id, delivery.event_id, delivery.attempts, delivery.since
    )
    SELECT
        taken.delivery_id, taken.subscription_id, taken.attempts, taken.since,
        subscription.channel, subscription.address, subscription.sealed, subscription.failures,
        event.id, event.number, event.kind, event.subject, event.at, event.body, coalesce(owner.name, '') AS user_name
    FROM taken
    JOIN admin.event_subscriptions AS subscription ON subscription.id = taken.subscription_id
    JOIN admin.events AS event ON event.id = taken.event_id
    LEFT JOIN admin.users AS owner ON owner.id = event.user_id
"""
_PUT_BACK = """
    UPDATE admin.event_deliveries SET due_at = :now, attempts = attempts - 1
    WHERE id = ANY (CAST(:ids AS bigint[])) AND state = 'waiting'
"""
# Not where somebody has said meanwhile that it is to be tried anew, and another replica has.
_NOTE = """
    UPDATE admin.event_deliveries SET state = :state, due_at = :due_at, ended_at = :ended_at, said = :said
    WHERE id = :id AND state = 'waiting' AND attempts = :attempts
"""
_NOTE_SUBSCRIPTION = """
    UPDATE admin.event_subscriptions SET
        delivered = delivered + :delivered,
        delivered_at = CASE WHEN :delivered > 0 THEN CAST(:now AS timestamptz) ELSE delivered_at END,
        failures = :failures,
        failing_since = CASE
            WHEN :failures = 0 THEN NULL WHEN :is_worse THEN coalesce(failing_since, :now) ELSE failing_since END,
        retry_at = :retry_at,
        last_error = CASE WHEN :failures = 0 THEN '' WHEN :is_worse THEN :said ELSE last_error END
    WHERE id = :id
"""
_FORGET = """
    DELETE FROM admin.events WHERE id IN (SELECT id FROM admin.events WHERE at < :before ORDER BY at LIMIT 5000)
"""
_COUNT = "SELECT state, count(*) AS n FROM admin.event_deliveries WHERE state <> 'delivered' GROUP BY state"
