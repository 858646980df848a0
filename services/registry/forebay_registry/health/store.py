"""Drains, maintenance windows and the changes of backends' states, in Postgres. Every method raises Unavailable while that
is away, and those that write also where another registry leads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import DBAPIError

from forebay.backend_states import condition_named
from forebay.database import Database
from forebay.errors import ForebayError, Unavailable
from forebay_registry.backend import BackendId
from forebay_registry.health.lifecycle import CHANGES_KEPT, Change
from forebay_registry.health.order_book import Orders
from forebay_registry.health.orders import OVER_KEPT_S, Drain, Scope, Window
from forebay_registry.health.tables import drains, health_changes, maintenance
from forebay_registry.keeping.tables import backends

_BAD_VALUE = "22"


class NotKept(ForebayError):
    """PostgreSQL refuses changes of health."""


class LifecycleStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def orders(self) -> Orders:
        async with self._database.reading() as connection:
            found = (await connection.execute(select(*_DRAIN))).all()
            windows = (await connection.execute(select(*_WINDOW))).all()
        return Orders(
            tuple(d for row in found if (d := _drain(row)) is not None),
            tuple(w for row in windows if (w := _window(row)) is not None),
        )

    async def history(self) -> dict[BackendId, list[Change]]:
        """The last changes of each backend, the oldest first."""
        newest = func.row_number().over(partition_by=health_changes.c.backend_id, order_by=health_changes.c.id.desc())
        ranked = select(*_CHANGE, backends.c.name, newest.label("age")).join(
            backends, backends.c.id == health_changes.c.backend_id
        )
        table = ranked.subquery()
        query = select(table).where(table.c.age <= CHANGES_KEPT).order_by(table.c.id)
        told: dict[BackendId, list[Change]] = {}
        async with self._database.reading() as connection:
            for row in await connection.execute(query):
                told.setdefault(BackendId(row.backend_id), []).append(_change(row))
        return told

    async def put_drain(self, drain: Drain) -> None:
        values = {
            "asked_at": _moment(drain.since),
            "asked_by": drain.by,
            "ends_at": _moment(drain.ends_at) if drain.ends_at is not None else None,
            "is_forced": drain.is_forced,
            "reason": drain.reason,
        }
        statement = upsert(drains).values(scope=str(drain.scope), subject=drain.subject, **values)
        async with self._database.writing() as connection:
            await connection.execute(statement.on_conflict_do_update(index_elements=["scope", "subject"], set_=values))

    async def lift_drain(self, scope: Scope, subject: str) -> None:
        async with self._database.writing() as connection:
            await connection.execute(delete(drains).where(drains.c.scope == str(scope), drains.c.subject == subject))

    async def put_window(self, window: Window) -> None:
        """Adds it, and forgets those that have been over for long."""
        values = {
            "id": window.id,
            "scope": str(window.scope),
            "subject": window.subject,
            "begins_at": _moment(window.begins_at),
            "ends_at": _moment(window.ends_at),
            "drain_before_s": window.drain_before_s,
            "reason": window.reason,
            "added_at": _moment(window.added_at),
            "added_by": window.by,
        }
        over = _moment(window.added_at - OVER_KEPT_S)
        async with self._database.writing() as connection:
            await connection.execute(delete(maintenance).where(maintenance.c.ends_at < over))
            await connection.execute(insert(maintenance).values(values))

    async def remove_window(self, window_id: str) -> None:
        async with self._database.writing() as connection:
            await connection.execute(delete(maintenance).where(maintenance.c.id == window_id))

    async def add_changes(self, changes: Sequence[Change]) -> None:
        """All or none; those of backends that are gone are left out, and of each backend the last are kept. Raises
        NotKept."""
        # Locked, since a backend that is removed meanwhile would take these rows' ground away.
        theirs = backends.c.id.in_({change.backend_id for change in changes})
        locked = select(backends.c.id).where(theirs).order_by(backends.c.id).with_for_update(read=True, key_share=True)
        try:
            async with self._database.writing() as connection:
                known = set(await connection.scalars(locked))
                rows = [_change_values(change) for change in changes if change.backend_id in known]
                if not rows:
                    return
                await connection.execute(insert(health_changes), rows)
                await connection.execute(_forget_old({row["backend_id"] for row in rows}))
        except DBAPIError as error:
            if str(getattr(error.orig, "sqlstate", "")).startswith(_BAD_VALUE):
                raise NotKept(f"PostgreSQL refuses changes of health: {error.orig}") from error
            # A deadlock, a missing right: it may pass.
            raise Unavailable(f"PostgreSQL does not take changes of health now: {error.orig}") from error


def _forget_old(backend_ids: Iterable[str]) -> Any:
    newest = func.row_number().over(partition_by=health_changes.c.backend_id, order_by=health_changes.c.id.desc())
    of_these = health_changes.c.backend_id.in_(sorted(backend_ids))
    ranked = select(health_changes.c.id, newest.label("age")).where(of_these).subquery()
    return delete(health_changes).where(health_changes.c.id.in_(select(ranked.c.id).where(ranked.c.age > CHANGES_KEPT)))


_DRAIN = (
    drains.c.scope,
    drains.c.subject,
    drains.c.asked_at,
    drains.c.asked_by,
    drains.c.ends_at,
    drains.c.is_forced,
    drains.c.reason,
)
_WINDOW = (
    maintenance.c.id,
    maintenance.c.scope,
    maintenance.c.subject,
    maintenance.c.begins_at,
    maintenance.c.ends_at,
    maintenance.c.drain_before_s,
    maintenance.c.reason,
    maintenance.c.added_at,
    maintenance.c.added_by,
)
_CHANGE = (
    health_changes.c.id,
    health_changes.c.backend_id,
    health_changes.c.at,
    health_changes.c.before,
    health_changes.c.after,
    health_changes.c.cause,
    health_changes.c.reason,
    health_changes.c.in_maintenance,
)


def _drain(row: Any) -> Drain | None:
    # A newer version's scope holds nothing here.
    if row.scope not in set(Scope):
        return None
    return Drain(
        scope=Scope(row.scope),
        subject=row.subject,
        since=row.asked_at.timestamp(),
        by=row.asked_by,
        ends_at=row.ends_at.timestamp() if row.ends_at is not None else None,
        is_forced=row.is_forced,
        reason=row.reason,
    )


def _window(row: Any) -> Window | None:
    if row.scope not in set(Scope):
        return None
    return Window(
        id=row.id,
        scope=Scope(row.scope),
        subject=row.subject,
        begins_at=row.begins_at.timestamp(),
        ends_at=row.ends_at.timestamp(),
        drain_before_s=row.drain_before_s,
        reason=row.reason,
        by=row.added_by,
        added_at=row.added_at.timestamp(),
    )


def _change(row: Any) -> Change:
    return Change(
        backend_id=BackendId(row.backend_id),
        backend=row.name,
        at=row.at.timestamp(),
        before=condition_named(row.before),
        after=condition_named(row.after),
        cause=row.cause,
        reason=row.reason,
        in_maintenance=row.in_maintenance,
    )


def _change_values(change: Change) -> dict[str, Any]:
    return {
        "backend_id": change.backend_id,
        "at": _moment(change.at),
        "before": str(change.before),
        "after": str(change.after),
        "cause": change.cause,
        "reason": change.reason[:500],
        "in_maintenance": change.in_maintenance,
    }


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
