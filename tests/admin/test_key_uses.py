"""When a key was used last is noted with the sums of the ledger."""

from __future__ import annotations

import random
from datetime import timedelta

from forebay.database import Database
from forebay_admin.ledger.key_uses import last_uses
from forebay_admin.ledger.ledger_store import LedgerStore
from forebay_admin.ledger.usage_sums import Span
from tests.admin.test_rollups import NOW, database, forget_when_it_was_noted, rollups, rows_at

__all__ = ("database",)


async def test_a_key_was_used_in_the_newest_minute_that_has_a_row_of_it(database: Database) -> None:
    minute = Span.MINUTE.of(NOW)
    newer, older, oldest = (minute - timedelta(minutes=m) for m in (5, 50, 500))

    async def written(**used: object) -> None:
        rows = rows_at(random.Random(1), list(used.values()))  # type: ignore[arg-type]
        await LedgerStore(database).write([row._replace(key_id=key) for row, key in zip(rows, used, strict=True)], ())
        await forget_when_it_was_noted(database)
        await rollups(database, NOW).sum_up()

    await written(one=older, two=older)
    await written(one=newer, two=oldest)  # which comes late
    async with database.reading() as connection:
        assert await last_uses(connection, ["one", "two", "never"]) == {"one": newer, "two": older}
