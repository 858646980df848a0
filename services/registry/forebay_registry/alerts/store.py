"""Alerts, silences and what webhooks are still to be told, in Postgres. Every method raises Unavailable while that is away,
and those that write also where another registry leads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import delete, select, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert

from forebay.database import Database
from forebay_registry.alerts.book import Alert, Silence
from forebay_registry.alerts.outbox import Letter
from forebay_registry.alerts.rules import Severity
from forebay_registry.alerts.tables import alerts, silences, webhook_messages

MOST_READ = 1000
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Stored:
    open: tuple[Alert, ...]
    silences: tuple[Silence, ...]
    letters: Mapping[str, Sequence[Letter]]
    """Webhook → its letters, in order."""


class AlertStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> Stored:
        letters: dict[str, list[Letter]] = {}
        async with self._database.reading() as connection:
            found = (await connection.execute(select(alerts).where(alerts.c.closed_at.is_(None)))).all()
            quiet = (await connection.execute(select(silences))).all()
            by_age = select(webhook_messages).order_by(webhook_messages.c.made_at, webhook_messages.c.number)
            for row in await connection.execute(by_age):
                letters.setdefault(row.webhook, []).append(_letter(row))
        return Stored(tuple(_alert(row) for row in found), tuple(_silence(row) for row in quiet), letters)

    async def closed(self, limit: int) -> list[Alert]:
        """The newest first."""
        query = select(alerts).where(alerts.c.closed_at.is_not(None)).order_by(alerts.c.opened_at.desc(), alerts.c.id)
        async with self._database.reading() as connection:
            return [_alert(row) for row in await connection.execute(query.limit(min(limit, MOST_READ)))]

    async def beginning_with(self, text: str) -> list[Alert]:
        """At most two, so that one knows whether it is the only one."""
        query = select(alerts).where(alerts.c.id.startswith(text, autoescape=True)).limit(2)
        async with self._database.reading() as connection:
            return [_alert(row) for row in await connection.execute(query)]

    async def keep(
        self,
        changed: Iterable[Alert],
        letters: Mapping[tuple[str, str], Letter],
        over: Sequence[tuple[str, str]],
    ) -> None:
        """All or none: alerts as they are now, letters that are new, and those that are over, each by webhook and id."""
        async with self._database.writing() as connection:
            # What is closed first: another one of its rule and subject may have opened since.
            for alert in sorted(changed, key=lambda a: a.closed_at is None):
                values = _alert_values(alert)
                statement = upsert(alerts).values(values)
                await connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))
            rows = [_letter_values(webhook, letter) for (webhook, _), letter in letters.items()]
            for start in range(0, len(rows), _BATCH):
                some = upsert(webhook_messages).values(rows[start : start + _BATCH])
                await connection.execute(some.on_conflict_do_nothing())
            for start in range(0, len(over), _BATCH):
                key = tuple_(webhook_messages.c.webhook, webhook_messages.c.id)
                await connection.execute(delete(webhook_messages).where(key.in_(over[start : start + _BATCH])))

    async def put_silence(self, silence: Silence) -> None:
        """In place of the one of its subject and rule."""
        same = (silences.c.subject == silence.subject) & (silences.c.rule == silence.rule)
        values = {
            "id": silence.id,
            "subject": silence.subject,
            "rule": silence.rule,
            "added_at": _moment(silence.added_at),
            "added_by": silence.added_by,
            "ends_at": _moment(silence.ends_at),
            "reason": silence.reason,
        }
        async with self._database.writing() as connection:
            await connection.execute(delete(silences).where(same))
            await connection.execute(upsert(silences).values(values))

    async def end_silences(self, ids: Sequence[str]) -> None:
        async with self._database.writing() as connection:
            await connection.execute(delete(silences).where(silences.c.id.in_(ids)))

    async def forget(self, before: float, webhooks: Sequence[str]) -> None:
        """Alerts that were over before then, silences that are, and letters for webhooks that there are no more."""
        then = _moment(before)
        async with self._database.writing() as connection:
            await connection.execute(delete(alerts).where(alerts.c.closed_at < then))
            await connection.execute(delete(silences).where(silences.c.ends_at < then))
            await connection.execute(delete(webhook_messages).where(webhook_messages.c.webhook.not_in(webhooks)))


def _alert(row: Any) -> Alert:
    return Alert(
        id=row.id,
        rule=row.rule,
        subject=row.subject,
        node=row.node,
        # A newer version's severity is taken for the usual one.
        severity=Severity(row.severity) if row.severity in set(Severity) else Severity.WARNING,
        summary=row.summary,
        todo=row.todo,
        began_at=row.began_at.timestamp(),
        opened_at=row.opened_at.timestamp(),
        closed_at=_seconds(row.closed_at),
        closed_because=row.closed_because,
        acked_at=_seconds(row.acked_at),
        acked_by=row.acked_by,
        ack_note=row.ack_note,
        notified_at=_seconds(row.notified_at),
        events=row.events,
    )


def _alert_values(alert: Alert) -> dict[str, Any]:
    return {
        "id": alert.id,
        "rule": alert.rule,
        "subject": _text(alert.subject),
        "node": _text(alert.node),
        "severity": str(alert.severity),
        "summary": _text(alert.summary),
        "todo": _text(alert.todo),
        "began_at": _moment(alert.began_at),
        "opened_at": _moment(alert.opened_at),
        "closed_at": _maybe(alert.closed_at),
        "closed_because": alert.closed_because,
        "acked_at": _maybe(alert.acked_at),
        "acked_by": alert.acked_by,
        "ack_note": alert.ack_note,
        "notified_at": _maybe(alert.notified_at),
        "events": alert.events,
    }


def _silence(row: Any) -> Silence:
    return Silence(
        row.id, row.subject, row.rule, row.added_at.timestamp(), row.added_by, row.ends_at.timestamp(), row.reason
    )


def _letter(row: Any) -> Letter:
    return Letter(row.id, row.alert_id, row.number, row.made_at.timestamp(), orjson.dumps(row.body))


def _letter_values(webhook: str, letter: Letter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "webhook": webhook,
        "alert_id": letter.alert_id,
        "number": letter.number,
        "made_at": _moment(letter.made_at),
        "body": orjson.loads(letter.body),
    }


def _text(told: str) -> str:
    """Postgres keeps no NUL, and what an agent says may hold one."""
    return told.replace("\0", "")[:2000]


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _maybe(seconds: float | None) -> datetime | None:
    return None if seconds is None else _moment(seconds)


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
