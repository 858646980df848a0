"""The audit log: who did what, to what, when, through which interface, and how it was before and after. Append-only, without
secrets. Postgres chains each entry to the one before when it is committed: see `chain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.rpc import caller_address
from forebay_admin.tables import audit_log

Facts = Mapping[str, str | int | bool | list[str] | None]


class Interface(StrEnum):
    GRPC = "grpc"
    REST = "rest"
    SEED = "seed"
    """The administration routes of other gateways."""
    JOIN = "join"
    """The HTTP port that an invited node enrols through."""
    SIGN_IN = "sign_in"
    """The HTTP port that people sign in at."""
    WEB = "web"
    """A page of the HTTP port."""
    START = "start"
    """Nobody's call: admin did it itself when it started."""
    SCHEDULE = "schedule"
    """Nobody's call either: it was time."""


through: ContextVar[Interface] = ContextVar("through", default=Interface.GRPC)
"""Which interface the call that is being answered came through."""


@dataclass(frozen=True, slots=True)
class Act:
    actor: str
    """A user's name, or that of a part of Forebay."""
    action: str
    """Noun and verb, such as key.revoke."""
    subject: str
    """The name or id of what was acted upon."""
    interface: Interface = field(default_factory=lambda: through.get())
    actor_key_id: str = ""
    address: str = field(default_factory=lambda: caller_address.get())
    """Where the call came from. Empty: it was nobody's call."""
    before: Facts | None = None
    after: Facts | None = None


async def record(connection: AsyncConnection, act: Act, now: datetime) -> None:
    """In the transaction of the act itself, where the act is one of ours."""
    await record_all(connection, (act,), now)


async def record_all(connection: AsyncConnection, acts: Sequence[Act], now: datetime) -> None:
    """The same, of acts that one call did, in their order."""
    await connection.execute(
        insert(audit_log),
        [
            {
                "at": now,
                "actor": act.actor,
                "actor_key_id": act.actor_key_id,
                "interface": act.interface.value,
                "address": act.address,
                "action": act.action,
                "subject": act.subject,
                "before": dict(act.before) if act.before is not None else None,
                "after": dict(act.after) if act.after is not None else None,
            }
            for act in acts
        ],
    )
