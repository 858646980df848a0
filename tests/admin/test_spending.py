"""What groups use, as metrics tell it: only what is new in the ledger, under the groups' names."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from forebay.database import open_database
from forebay.errors import Unavailable
from forebay.metrics import Metrics
from forebay_admin.ledger.ledger_store import LedgerStore
from forebay_admin.ledger.spending import Spending, names_in
from forebay_admin.ledger.usage_rows import LedgerRow
from forebay_admin.service import MIGRATIONS
from tests.admin.test_ledger import record, rows_of
from tests.forebay.test_metrics import scrape

_AT = datetime(2026, 11, 30, 12, tzinfo=UTC)


def row(**other: Any) -> LedgerRow:
    told = dict.fromkeys(LedgerRow._fields, "") | {
        "day": _AT.date(),
        "ledger_id": uuid4(),
        "group_id": "g-1",
        "model": "tiny",
        "outcome": "finished",
        "started_at": _AT,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "attempts": 1,
        "cost_micros": 300,
        "unbilled": None,
    }
    return LedgerRow(**(told | other))


class Names:
    def __init__(self) -> None:
        self.asked = 0
        self.is_away = False

    async def read(self) -> Mapping[str, str]:
        self.asked += 1
        if self.is_away:
            raise Unavailable("away")
        return {"g-1": "physics", "g-2": "biology"}


async def test_rows_are_counted_by_the_names_of_their_groups() -> None:
    metrics, names = Metrics(), Names()
    spending = Spending(metrics, names.read)
    await spending.note([row(), row(), row(group_id="g-2", outcome="failed"), row(group_id="", cost_micros=None)])
    told = scrape(metrics)
    assert told["forebay_admin_group_requests_total", (("group", "physics"), ("outcome", "finished"))] == 2
    assert told["forebay_admin_group_requests_total", (("group", "biology"), ("outcome", "failed"))] == 1
    assert told["forebay_admin_group_tokens_total", (("group", "physics"), ("kind", "prompt"))] == 20
    assert told["forebay_admin_group_tokens_total", (("group", "(none)"), ("kind", "completion"))] == 5
    assert told["forebay_admin_group_cost_micros_total", (("group", "physics"),)] == 600
    assert told["forebay_admin_model_cost_micros_total", (("model", "tiny"),)] == 900
    assert told["forebay_admin_unpriced_rows_total", (("why", "unknown"),)] == 1
    await spending.note([row()])
    assert names.asked == 1, "names are read when an unknown id comes, not for each batch"


async def test_a_request_that_never_ran_makes_no_series_of_what_its_client_wrote() -> None:
    metrics = Metrics()
    await Spending(metrics, Names().read).note([row(model="made up", outcome="refused", attempts=0)])
    told = scrape(metrics)
    assert told["forebay_admin_group_requests_total", (("group", "physics"), ("outcome", "refused"))] == 1
    assert not [labels for _, labels in told if "made up" in str(labels)]


async def test_without_the_database_groups_go_by_their_ids_until_it_is_back() -> None:
    metrics, names = Metrics(), Names()
    spending = Spending(metrics, names.read)
    names.is_away = True
    await spending.note([row()])
    names.is_away = False
    await spending.note([row(), row(group_id="g-gone"), row(group_id="g-gone")])
    told = scrape(metrics)
    finished = {labels[0][1]: n for (name, labels), n in told.items() if name == "forebay_admin_group_requests_total"}
    assert finished == {"g-1": 1, "physics": 1, "g-gone": 2}
    await spending.note([row(group_id="g-gone")])
    assert names.asked == 2


async def test_a_row_that_comes_again_is_not_counted_again(admin_database_url: str) -> None:
    at = datetime.now(UTC).timestamp()
    first, second, third = record(at), record(at), record(at)
    metrics = Metrics()
    async with open_database(admin_database_url, "admin") as database:
        await database.migrate(MIGRATIONS)
        store, spending = LedgerStore(database), Spending(metrics, names_in(database))
        for came in (rows_of(first, second), rows_of(second, third), rows_of(first, first)):
            written = await store.write(came, ())
            assert len(written.new) == written.rows
            await spending.note(written.new)
    told = scrape(metrics)
    assert told["forebay_admin_group_requests_total", (("group", "(none)"), ("outcome", "finished"))] == 3
