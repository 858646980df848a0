"""Where answers wait for a request to be made again. Answers hold keys that are told once, so each is sealed for its row."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from forebay.database import Database
from forebay.sealed import NotSealed, Seal
from forebay_admin.rest.repeats import KEPT, Kept
from forebay_admin.tables import rest_answers

PURPOSE = "rest-answers"
"""Of the Seal."""


class AnswerStore:
    """Each raises Unavailable."""

    def __init__(self, database: Database, seal: Seal) -> None:
        self._database = database
        self._seal = seal

    async def begin(self, caller: str, key: str, mac: bytes, now: datetime) -> Kept | None:
        """None: nobody came with this key before, and the request is under way. Else what became of the one that did."""
        async with self._database.writing() as connection:
            await connection.execute(delete(rest_answers).where(rest_answers.c.begun_at < now - KEPT))
            begun = await connection.execute(
                insert(rest_answers)
                .values(caller=caller, idempotency_key=key, request_mac=mac, begun_at=now)
                .on_conflict_do_nothing()
                .returning(rest_answers.c.caller)
            )
            if begun.first() is not None:
                return None
            row = (await connection.execute(select(rest_answers).where(_its(caller, key)))).first()
        if row is None:  # taken back in this moment
            return Kept(mac, now, None)
        try:
            answer = self._seal.open(row.sealed, _bound_to(caller, key)) if row.sealed is not None else b""
        except NotSealed:  # the seal key is another by now
            return Kept(row.request_mac, row.begun_at, None)
        return Kept(row.request_mac, row.begun_at, row.status, answer)

    async def keep(self, caller: str, key: str, status: int, answer: bytes) -> None:
        sealed = self._seal.close(answer, _bound_to(caller, key))
        async with self._database.writing() as connection:
            await connection.execute(update(rest_answers).where(_its(caller, key)).values(status=status, sealed=sealed))

    async def forget(self, caller: str, key: str) -> None:
        """What came with this key was not done, and may come again."""
        async with self._database.writing() as connection:
            await connection.execute(delete(rest_answers).where(_its(caller, key)))


def _its(caller: str, key: str) -> ColumnElement[bool]:
    return (rest_answers.c.caller == caller) & (rest_answers.c.idempotency_key == key)


def _bound_to(caller: str, key: str) -> bytes:
    return f"{caller}\n{key}".encode()
