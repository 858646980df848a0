"""Auditing what operators do: with the change itself, in its transaction (`Note`), or once another service has carried it
out, of which admin demands beforehand that it will be able to write it down (`Audit`)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

from sqlalchemy import text

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import Unavailable
from forebay_admin.audit.audit_store import Act, Facts, record
from forebay_admin.changes import Change


class Who(Protocol):
    """As much of an actor as is written down."""

    @property
    def name(self) -> str: ...
    @property
    def key_id(self) -> str: ...


class Note:
    """`await note(change, actor, "pool.set", pool, before=…, after=…)`"""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def __call__(
        self,
        change: Change,
        actor: Who,
        action: str,
        subject: str,
        *,
        before: Facts | None = None,
        after: Facts | None = None,
    ) -> None:
        act = Act(actor.name, action, subject, actor_key_id=actor.key_id, before=before, after=after)
        await record(change.connection, act, datetime.fromtimestamp(self._clock.now(), UTC))


class Audit:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def demand(self) -> None:
        """What cannot be audited is not begun. Raises Unavailable."""
        async with self._database.reading() as connection:
            await connection.execute(text("SELECT 1"))

    async def record(
        self,
        actor: Who,
        action: str,
        subject: str,
        *,
        before: Facts | None = None,
        after: Facts | None = None,
        if_lost: str = "",
    ) -> None:
        """Once it is done. `if_lost`: what to tell when Postgres went away in between. Raises Unavailable."""
        act = Act(actor.name, action, subject, actor_key_id=actor.key_id, before=before, after=after)
        try:
            async with self._database.writing() as connection:
                await record(connection, act, datetime.fromtimestamp(self._clock.now(), UTC))
        except Unavailable as error:
            if not if_lost:
                raise
            raise Unavailable(if_lost) from error
