"""Dead letters, for operators: what they are, why, and the way back into the ledger for those that can be rows now,
because another version reads them or a clock was set right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from google.protobuf.message import DecodeError

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput
from forebay.wire.v1 import usage_pb2
from forebay.wire.v1 import usage_queries_pb2 as wire
from forebay_admin.audit.audit_store import Act, record
from forebay_admin.ledger.ledger_store import LedgerStore
from forebay_admin.ledger.letters_store import (
    Letter,
    count_letters,
    forget_letters,
    letter_with_id,
    letters_with,
    newest_letters,
)
from forebay_admin.ledger.usage_rows import NOT_A_BATCH, LedgerRow, Parsed, Poison, parse_batch
from forebay_admin.money.price_book import PriceBook
from forebay_admin.people.access import Actor
from forebay_admin.wire_forms import moment_us

_MOST_LISTED, _USUAL_LISTED = 1000, 100
_MOST_RETRIED = 1000
_TOLD_STILL = 100
_SHOWN_BYTES = 64 * 1024
_DIGITS = frozenset("0123456789abcdef")


class LettersDesk:
    def __init__(
        self, database: Database, ledger: LedgerStore, prices: Callable[[], PriceBook | None], clock: Clock
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._prices = prices
        self._clock = clock

    async def list_all(self, request: wire.ListDeadLettersRequest) -> wire.ListDeadLettersResponse:
        if request.limit > _MOST_LISTED:
            raise BadInput(f"At most {_MOST_LISTED} dead letters are told at once.")
        limit = request.limit or _USUAL_LISTED
        after = _digest(request.page) if request.page else None
        async with self._database.reading() as connection:
            letters = await newest_letters(connection, after, limit + 1)
            total = await count_letters(connection)
        shown = letters[:limit]
        return wire.ListDeadLettersResponse(
            letters=[_to_wire(letter) for letter in shown],
            next_page=shown[-1].id if len(letters) > limit else "",
            total=total,
        )

    async def show(self, request: wire.ShowDeadLetterRequest) -> wire.ShowDeadLetterResponse:
        beginning = request.id.lower()
        if not beginning or len(beginning) > 64 or not set(beginning) <= _DIGITS:
            raise BadInput("A dead letter is called by its id, or the beginning of it: hexadecimal digits.")
        async with self._database.reading() as connection:
            letter = await letter_with_id(connection, beginning)
        return wire.ShowDeadLetterResponse(
            letter=_to_wire(letter), payload=letter.payload[:_SHOWN_BYTES], records=_records(letter)
        )

    async def retry(self, request: wire.RetryDeadLettersRequest, actor: Actor) -> wire.RetryDeadLettersResponse:
        if len(request.ids) > _MOST_RETRIED:
            raise BadInput(f"At most {_MOST_RETRIED} dead letters are retried at once.")
        wanted = [_digest(one) for one in request.ids] or None
        async with self._database.reading() as connection:
            letters = await letters_with(connection, wanted, _MOST_RETRIED)
        rows: list[LedgerRow] = []
        again: list[Letter] = []
        still: list[tuple[Letter, str]] = []
        for letter in letters:
            parsed = self._parse(letter)
            if parsed.rows and not parsed.poison:
                rows += parsed.rows
                again.append(letter)
            else:
                still.append((letter, parsed.poison[0].why if parsed.poison else "nothing is in it"))
        # Rows first: when we die in between, the letters come again, and the ledger knows their rows.
        written = await self._ledger.write(rows, ()) if rows else None
        if again:
            async with self._database.writing() as connection:
                await forget_letters(connection, [letter.digest for letter in again])
                await record(
                    connection,
                    Act(
                        actor.name,
                        "dead_letter.retry",
                        f"{len(again)} dead letters",
                        actor_key_id=actor.key_id,
                        before={"ids": [letter.id for letter in again]},
                        after={"rows": written.rows if written is not None else 0},
                    ),
                    self._now(),
                )
        return wire.RetryDeadLettersResponse(
            retried=len(again),
            rows=written.rows if written is not None else 0,
            left=len(still),
            still=[_to_wire(letter, why) for letter, why in still[:_TOLD_STILL]],
        )

    def _parse(self, letter: Letter) -> Parsed:
        payload = letter.payload
        if not letter.why.startswith(NOT_A_BATCH):
            try:
                payload = usage_pb2.UsageBatch(
                    records=[usage_pb2.UsageRecord.FromString(letter.payload)]
                ).SerializeToString()
            except DecodeError as error:
                return Parsed((), (Poison(letter.subject, letter.payload, f"not a UsageRecord: {error}"),))
        return parse_batch(letter.subject, payload, self._now(), self._prices())

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


def _records(letter: Letter) -> Sequence[usage_pb2.UsageRecord]:
    try:
        if letter.why.startswith(NOT_A_BATCH):
            return usage_pb2.UsageBatch.FromString(letter.payload).records
        return [usage_pb2.UsageRecord.FromString(letter.payload)]
    except DecodeError:
        return ()


def _digest(text: str) -> bytes:
    """Raises BadInput."""
    if len(text) != 64 or not set(text.lower()) <= _DIGITS:
        raise BadInput(f"{text!r} is not the id of a dead letter: it has 64 hexadecimal digits.")
    return bytes.fromhex(text)


def _to_wire(letter: Letter, why: str = "") -> wire.DeadLetter:
    return wire.DeadLetter(
        id=letter.id,
        received_at_us=moment_us(letter.received_at),
        **{"from": letter.subject},
        why=why or letter.why,
        bytes=letter.size,
    )
