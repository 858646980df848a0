"""Spends ephemeral keys: each works for one request, whichever of the gateways it comes to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput
from forebay.wire.v1 import ephemeral_keys_pb2, ephemeral_keys_pb2_grpc
from forebay_admin.tables import spent_ephemeral_keys
from forebay_admin.wire_forms import moment

_ID_LENGTH = 16
_REMEMBERED = timedelta(hours=1)
"""After its end: a gateway whose clock is behind may still take it for valid."""


class EphemeralKeysServicer(ephemeral_keys_pb2_grpc.EphemeralKeysServicer):
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def Spend(
        self, request: ephemeral_keys_pb2.SpendEphemeralKeyRequest, context: Any
    ) -> ephemeral_keys_pb2.SpendEphemeralKeyResponse:
        """Whether this is the first time. Raises BadInput, Unavailable."""
        if len(request.id) != _ID_LENGTH:
            raise BadInput(f"An ephemeral key's id has {_ID_LENGTH} bytes.")
        expires_at, forgotten = moment(request.expires_at_us), self._now() - _REMEMBERED
        if expires_at < forgotten:
            return ephemeral_keys_pb2.SpendEphemeralKeyResponse(was_free=False)
        spent = spent_ephemeral_keys.c
        async with self._database.writing() as connection:
            taken = await connection.execute(
                insert(spent_ephemeral_keys)
                .values(id=request.id, expires_at=expires_at)
                .on_conflict_do_nothing()
                .returning(spent.id)
            )
            was_free = taken.first() is not None
            await connection.execute(delete(spent_ephemeral_keys).where(spent.expires_at < forgotten))
        return ephemeral_keys_pb2.SpendEphemeralKeyResponse(was_free=was_free)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)
