"""Balances that are paid in advance: each ledger row is charged once, whatever comes again, and what is left is told to the
scheduler as it is."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.database import open_database
from forebay.errors import BadInput, NotPossible
from forebay.ledger_id import new_ledger_id
from forebay.subjects import usage
from forebay.wire.v1 import admin_pb2, types_pb2, usage_pb2
from forebay_admin.ledger.ledger_store import LedgerStore
from forebay_admin.ledger.usage_rows import LedgerRow, parse_batch
from forebay_admin.money.balances import (
    MOST_MICROS,
    Account,
    Balance,
    Payers,
    PostingKind,
    as_budget,
    demand_alone,
    demand_paid,
    demand_posting,
)
from forebay_admin.money.charges import Charges, sum_up
from forebay_admin.money.price_book import PriceBook
from forebay_admin.money.price_store import all_versions
from forebay_admin.money.prices import Prices, PriceVersion
from forebay_admin.people.people import Role
from tests.admin.replica import Running
from tests.admin.test_operator import query, refused, somebody

NOW = datetime(2027, 1, 15, 12, 0, tzinfo=UTC)
PARENTS = {"org": None, "team": "org", "other": None}


def account(owner: str, *, user: bool = False, opened_at: datetime = NOW) -> Account:
    return Account(f"of-{owner}", owner if user else None, None if user else owner, owner, "admin", opened_at)


def payers(*accounts: Account) -> Payers:
    return Payers({one.id: one for one in accounts}, PARENTS)


def record(at: float, *, user: str = "alice", group: str = "team", tokens: int = 5, **changed: Any) -> Any:
    fields: dict[str, Any] = {
        "ledger_id": new_ledger_id(at),
        "key_id": "k",
        "user_id": user,
        "group_id": group,
        "model": "tiny",
        "outcome": types_pb2.OUTCOME_FINISHED,
        "started_at_us": round(at * 1_000_000),
        "usage": types_pb2.TokenUsage(completion_tokens=tokens, source=types_pb2.USAGE_SOURCE_ENGINE),
    }
    return usage_pb2.UsageRecord(**{**fields, **changed})


def rows_of(book: PriceBook, *records: usage_pb2.UsageRecord) -> Sequence[LedgerRow]:
    payload = usage_pb2.UsageBatch(records=records).SerializeToString()
    return parse_batch("s", payload, datetime.now(UTC) + timedelta(days=3650), book).rows


def test_the_closest_balance_pays_and_the_scheduler_counts_for_all_that_are_around() -> None:
    prices = Prices(completion_micros=1_000_000, request_micros=3)
    book = PriceBook([PriceVersion(1, "tiny", NOW, prices, "", NOW)])
    rows = rows_of(
        book,
        record(NOW.timestamp() + 1),
        record(NOW.timestamp() + 3601, user="bob"),
        record(NOW.timestamp() - 1),
        record(NOW.timestamp() + 1, group="other"),
        record(NOW.timestamp() + 1, group="org", user="bob", model="unknown"),
    )
    sums = sum_up(rows, payers(account("alice", user=True), account("org")), book)
    later = NOW + timedelta(hours=1)
    assert sums == {
        ("of-alice", NOW): (1 + 1, 2 * (5 + 3), 2 * (5 + 3)),
        ("of-org", NOW): (0, 0, 5 + 3),
        ("of-org", later): (1, 5 + 3, 5 + 3),
    }


@given(st.lists(st.tuples(st.sampled_from(["alice", "bob", "eve"]), st.sampled_from([*PARENTS]), st.integers(0, 99))))
def test_the_sum_of_what_is_charged_is_the_sum_of_the_costs(used: list[tuple[str, str, int]]) -> None:
    book = PriceBook([PriceVersion(1, "*", NOW, Prices(completion_micros=333_333), "", NOW)])
    at = NOW.timestamp() + 60
    rows = rows_of(book, *(record(at, user=u, group=g, tokens=t) for u, g, t in used))
    sums = sum_up(rows, payers(account("bob", user=True), account("org"), account("other")), book)
    assert sum(cost for _, cost, _ in sums.values()) == sum(row.cost_micros or 0 for row in rows)
    assert sum(requests for requests, _, _ in sums.values()) == len(rows)


@pytest.mark.parametrize(
    ("mine", "others", "inside"),
    [
        (account("team"), [account("org")], "group org"),
        (account("org"), [account("team")], "group team"),
        (account("org"), [account("alice", user=True)], "user alice"),
        (account("alice", user=True), [account("org")], "group org"),
        (account("team"), [account("other"), account("bob", user=True)], None),
        (account("alice", user=True), [account("bob", user=True)], None),
    ],
)
def test_no_balance_is_opened_within_another(mine: Account, others: list[Account], inside: str | None) -> None:
    groups_of = {"alice": "team", "bob": "other"}
    if inside is None:
        demand_alone(mine, groups_of, payers(*others), PARENTS)
        return
    with pytest.raises(NotPossible, match=f"The {inside} pays in advance already"):
        demand_alone(mine, groups_of, payers(*others), PARENTS)


@given(st.integers(0, MOST_MICROS), st.integers(0, MOST_MICROS), st.integers(0, MOST_MICROS))
def test_what_is_left_by_the_schedulers_count_is_what_is_left(paid: int, charged: int, counted: int) -> None:
    balance = Balance(account("org"), paid, charged, counted)
    told = as_budget(balance)
    assert 0 <= told.amount <= MOST_MICROS
    assert 0 <= told.spent <= MOST_MICROS
    if 0 <= balance.left_micros <= MOST_MICROS - counted:
        assert told.amount - told.spent == balance.left_micros
    else:
        assert told.amount - told.spent <= max(0, balance.left_micros)


@pytest.mark.parametrize(
    ("kind", "amount"),
    [
        (PostingKind.TOP_UP, 0),
        (PostingKind.TOP_UP, -1),
        (PostingKind.REFUND, -1),
        (PostingKind.ADJUSTMENT, 0),
        (PostingKind.ADJUSTMENT, -MOST_MICROS - 1),
        (PostingKind.TOP_UP, MOST_MICROS + 1),
    ],
)
def test_negative_and_overflowing_money_is_refused(kind: PostingKind, amount: int) -> None:
    with pytest.raises(BadInput):
        demand_posting(kind, amount, "", "")
    with pytest.raises(BadInput):
        demand_paid(MOST_MICROS + 1)


async def test_a_row_is_charged_once_however_often_it_comes_and_not_at_all_when_it_is_not_kept(admin: Running) -> None:
    operator = await admin.operator()
    group = (await operator.AddGroup(name="team")).group.id
    await operator.SetPrice(model="tiny", terms={"completion_micros": 1_000_000, "request_micros": 2})
    await operator.OpenBalance(owner={"group": "team"}, amount_micros=1000)
    now = time.time()
    records = [record(now, group=group, tokens=tokens) for tokens in (5, 6, 7)]

    async def left() -> tuple[int, int]:
        balance = (await operator.ShowBalance(owner={"group": "team"})).balance
        return balance.left_micros, balance.requests

    async with open_database(admin.site.database_url, "admin") as database:
        async with database.reading() as connection:
            book = PriceBook(await all_versions(connection))
        store = LedgerStore(database, Charges(lambda: book).enter)
        rows = rows_of(book, *records)
        await store.prepare_days(datetime.now(UTC).date())
        await store.write(rows[:2], ())
        assert await left() == (1000 - 5 - 6 - 4, 2)
        await store.write(rows, ())
        await store.write(rows, ())
        assert await left() == (1000 - 5 - 6 - 7 - 6, 3)
        # Two replicas that were given the same message, and one that dies before it has committed.
        more = rows_of(book, *(record(now, group=group, tokens=1) for _ in range(20)))
        other = LedgerStore(database, Charges(lambda: book).enter)
        await asyncio.gather(store.write(more, ()), other.write(more, ()), store.write(more[:7], ()))

        async def dies(connection: Any, entered: Any) -> None:
            await Charges(lambda: book).enter(connection, entered)
            raise asyncpg.ConnectionDoesNotExistError("gone")

        lost = rows_of(book, record(now, group=group, tokens=100))
        with pytest.raises(Exception, match="gone"):
            await LedgerStore(database, dies).write(lost, ())
        assert await left() == (1000 - 18 - 6 - 20 - 40, 23)
        await store.write(lost, ())
    assert await left() == (1000 - 18 - 6 - 20 - 40 - 102, 24)
    (row,) = await query(admin, "SELECT sum(cost_micros) AS cost, count(price_version) AS n FROM admin.usage_ledger")
    assert (row["cost"], row["n"]) == (186, 24)


async def test_requests_cost_what_the_price_was_and_balances_follow_to_the_scheduler(admin: Running) -> None:
    operator = await admin.operator()
    group = (await operator.AddGroup(name="team")).group.id
    alice = await somebody(admin, "alice", Role.MEMBER)
    user = (await operator.ChangeUser(name="alice", group="team")).user.id
    price = (await operator.SetPrice(model="tiny", terms={"completion_micros": 1_000_000, "image_micros": 50})).price
    opened = (await operator.OpenBalance(owner={"group": "team"}, amount_micros=1000, reference="bill-1")).balance
    assert (await operator.ListModelTerms()).terms[0].completion_micros == 1_000_000

    watch = (await admin.watcher("scheduler")).WatchPolicy()
    assert await budget_of(watch, group, spent=0) == (opened.id, admin_pb2.BUDGET_UNIT_MONEY, 1000, 0)
    now = time.time()
    one = record(now, user=user, group=group, tokens=100, request_id="r1", images=1)
    refusal = record(now, user=user, group=group, request_id="r2", outcome=types_pb2.OUTCOME_REFUSED)
    unknown = record(now, user="somebody", group="else", request_id="r3", model="unknown")
    batch = usage_pb2.UsageBatch(records=[one, refusal, unknown]).SerializeToString()
    await admin.bus.append(usage("gateway-1"), batch)

    async def shown() -> Any:
        return (await operator.ShowBalance(owner={"id": opened.id})).balance

    async with asyncio.timeout(15):
        while (await shown()).requests < 1:
            await asyncio.sleep(0.05)
    assert (await shown()).left_micros == 1000 - 150

    (cost,) = (await alice.ShowCost(request_id="r1")).costs
    assert (cost.record.cost_micros, cost.price.id, cost.why, cost.balance_id) == (150, price.id, "", opened.id)
    (cost,) = (await alice.ShowCost(request_id="r2")).costs
    assert (cost.record.HasField("cost_micros"), cost.record.unbilled) == (False, "refused")
    assert cost.why == "It was refused, and nothing was done for it."
    assert not (await alice.ShowCost(request_id="r3")).costs
    (cost,) = (await operator.ShowCost(request_id="r3")).costs
    assert cost.why.startswith("Nothing had a price")
    (cost,) = (await operator.ShowCost(request_id=one.ledger_id.hex(), since_us=2**52)).costs
    assert cost.record.request_id == "r1"

    # The scheduler counts 100 of these 150; what it is told leaves as much as there is.
    assert await budget_of(watch, group, spent=100) == (opened.id, admin_pb2.BUDGET_UNIT_MONEY, 950, 100)
    (row,) = await query(admin, "SELECT told_micros FROM admin.balance_accounts")
    assert row["told_micros"] == 50

    again = await operator.PostBalance(
        owner={"group": "team"}, kind="top_up", amount_micros=1000, reference="bill-1", note="again"
    )
    assert (again.repeated, again.balance.paid_micros) == (True, 1000)
    told = await refused(
        operator.PostBalance(owner={"group": "team"}, kind="top_up", amount_micros=2, reference="bill-1")
    )
    assert told.startswith("ALREADY_EXISTS: bill-1 was posted on")
    await operator.PostBalance(owner={"group": "team"}, kind="adjustment", amount_micros=-100, reference="bill-2")
    whole = await alice.ShowBalance()
    assert [(p.kind, p.amount_micros, p.reference) for p in whole.postings] == [
        ("adjustment", -100, "bill-2"),
        ("top_up", 1000, "bill-1"),
    ]
    assert [(c.requests, c.cost_micros) for c in whole.charges] == [(1, 150)]
    assert (await refused(alice.ShowBalance(owner={"group": "team"}))).startswith("PERMISSION_DENIED")
    assert (await refused(operator.OpenBalance(owner={"user": "alice"}))).startswith("FAILED_PRECONDITION")
    closed = (await operator.CloseBalance(owner={"id": opened.id})).balance
    assert (closed.left_micros, closed.HasField("closed_at_us")) == (750, True)
    assert [b.id for b in (await operator.ListBalances(closed_too=True)).balances] == [opened.id]
    assert not (await operator.ListBalances()).balances
    rows = await query(admin, "SELECT action, after FROM admin.audit_log WHERE action ~ '^(balance|price)' ORDER BY id")
    assert [row["action"] for row in rows] == [
        *("price.set", "balance.open", "balance.post", "balance.post", "balance.close"),
    ]
    assert json.loads(rows[3]["after"])["paid_micros"] == 900
    watch.cancel()


async def budget_of(watch: Any, group: str, *, spent: int) -> tuple[str, int, int, int]:
    """As the scheduler is told of it, once so much is spent of it."""
    async with asyncio.timeout(30):
        while True:
            for told in (await watch.read()).groups:
                for budget in told.limits.budgets if told.group_id == group else ():
                    if budget.spent == spent:
                        return budget.id, budget.unit, budget.amount, budget.spent
