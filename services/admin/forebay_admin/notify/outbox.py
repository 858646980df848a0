"""What happened, written down in the transaction in which it happens, with one delivery for each subscription that wants it.
Who is told when is `deliverer`'s business."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.clock import Clock
from forebay_admin.notify.kinds import Kind, patterns_of

_LONGEST = 500
_MOST = 2**63 - 1


class Outbox:
    def __init__(self, clock: Clock, *, mails: bool = False) -> None:
        """`mails`: whether mail is set up, so that those whom an event is about are written to."""
        self._clock = clock
        self._mails = mails

    async def put(
        self,
        connection: AsyncConnection,
        kind: Kind,
        subject: str,
        body: Mapping[str, Any],
        *,
        user_id: str = "",
        only: str = "",
    ) -> str:
        """The event's id. In the caller's transaction: it is told when that has committed, and never otherwise.

        `subject`: what it is about, such as `user alice`. `body`: what becomes JSON; no secrets; under `kinds.SUMMARY` one
        sentence for people. `user_id`: whose own affair it is; they may hear of it too. `only`: the one subscription that is
        told."""
        event_id = f"event_{secrets.token_hex(12)}"
        await connection.execute(
            text(_PUT),
            {
                "id": event_id,
                "kind": kind.value,
                "subject": _kept(subject)[:_LONGEST],
                "user_id": user_id,
                "at": datetime.fromtimestamp(self._clock.now(), UTC),
                "body": orjson.dumps(_kept(dict(body))).decode(),
                "patterns": list(patterns_of(kind)),
                "mails": self._mails,
                "only": only,
            },
        )
        return event_id


_PUT = """
    WITH made AS (
        INSERT INTO admin.events (id, kind, subject, user_id, at, body)
        VALUES (:id, :kind, :subject, :user_id, :at, CAST(:body AS jsonb)) RETURNING id, user_id, at
    )
    INSERT INTO admin.event_deliveries (event_id, subscription_id, since, due_at)
    SELECT made.id, wanting.id, made.at, made.at
    FROM made CROSS JOIN admin.event_subscriptions AS wanting
    WHERE CASE
        WHEN :only <> '' THEN wanting.id = :only
        ELSE wanting.kinds && CAST(:patterns AS text[]) AND wanting.user_id IN ('', made.user_id)
        END
        AND NOT EXISTS (SELECT FROM admin.users AS away WHERE away.id = wanting.user_id AND away.disabled)
        AND (wanting.channel <> 'mail' OR wanting.address <> '' OR (:mails AND EXISTS (
            SELECT FROM admin.users AS owner WHERE owner.id = made.user_id AND owner.name LIKE '%_@_%' AND NOT owner.disabled
        )))
"""


def _kept(value: Any) -> Any:
    """Postgres keeps neither NULs nor halves of letters; a number that many programs cannot read is told as text."""
    if isinstance(value, str):
        return value.replace("\0", "").encode(errors="replace").decode()
    if isinstance(value, int) and not -_MOST <= value <= _MOST:
        return str(value)
    if isinstance(value, Mapping):
        return {_kept(name): _kept(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_kept(one) for one in value]
    return value
