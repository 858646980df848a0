"""What is left of a budget goes into its next period, once; and what of a window is told to the scheduler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.clock import ManualClock
from forebay.database import Database, open_database
from forebay.errors import BadInput
from forebay.ledger_id import new_ledger_id
from forebay.wire.v1 import admin_pb2, types_pb2, usage_pb2
from forebay_admin.changes import Changes
from forebay_admin.ledger.ledger_store import LedgerStore
from forebay_admin.ledger.usage_rows import parse_batch
from forebay_admin.people.people import Role, User, UserOrder
from forebay_admin.people.people_store import add_user
from forebay_admin.quotas.carry import SETTLE, SURE, Carried, left_of, no_carry_yet, turn_of
from forebay_admin.quotas.carrying import AGAIN, Carrying
from forebay_admin.quotas.periods import Period, span_of
from forebay_admin.quotas.quota_store import add_budget, budget_with_id, change_budget
from forebay_admin.quotas.quotas import BudgetUnit, Subject, SubjectKind, carrying, order_budget, plan_budget, resized
from forebay_admin.service import MIGRATIONS
from forebay_admin.versions import Since
from forebay_admin.watch import read_policy

DAY = Period.DAY


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


MIDNIGHT = at("2027-01-16T00:00")


def test_a_period_is_carried_out_of_once_a_while_after_its_end_and_counted_again_while_rows_come_in() -> None:
    before = no_carry_yet(DAY, "UTC", at("2027-01-15T12:00"))
    assert before == Carried(at("2027-01-15T00:00"), 0, 0)
    for now in (at("2027-01-15T23:59"), MIDNIGHT, MIDNIGHT + SETTLE - timedelta(microseconds=1)):
        assert turn_of(DAY, "UTC", 100, before, now) is None, now
    turn = turn_of(DAY, "UTC", 100, before, MIDNIGHT + SETTLE)
    assert turn is not None
    assert (turn.over, turn.since, turn.of, turn.is_first) == (span_of(DAY, "UTC", before.since), MIDNIGHT, 100, True)
    carried = left_of(turn, 70, 50)
    assert carried == Carried(MIDNIGHT, 30, 100)
    again = turn_of(DAY, "UTC", 100, carried, MIDNIGHT + SURE)
    assert again is not None
    assert (again.over, again.of, again.is_first) == (turn.over, 100, False)
    assert left_of(again, 130, 50) == Carried(MIDNIGHT, 0, 100)
    assert turn_of(DAY, "UTC", 100, carried, MIDNIGHT + SURE + timedelta(seconds=1)) is None
    tomorrow = turn_of(DAY, "UTC", 100, carried, MIDNIGHT + timedelta(days=1) + SETTLE)
    assert tomorrow is not None
    assert left_of(tomorrow, 0, 50) == Carried(MIDNIGHT + timedelta(days=1), 50, 130)


def test_a_clock_that_steps_back_over_the_end_of_a_period_carries_nothing_out_of_it_twice() -> None:
    carried = Carried(MIDNIGHT, 30, 100)
    for now in (at("2027-01-15T23:59:59"), at("2027-01-14T12:00"), at("2026-12-01T00:00")):
        assert turn_of(DAY, "UTC", 100, carried, now) is None, now


def test_an_amount_that_changes_before_a_period_was_counted_is_not_that_of_the_period() -> None:
    made = order_budget(plan_budget(BudgetUnit.TOKENS, 100, DAY, "UTC", carry_most=1000), at("2027-01-15T12:00"))
    assert resized(made, 900, at("2027-01-15T20:00")).carried == made.carried
    for amount, now in ((900, MIDNIGHT), (10, MIDNIGHT + SETTLE)):
        budget = resized(made, amount, now)
        again = resized(budget, amount + 1, now)
        assert again.carried == budget.carried == Carried(MIDNIGHT, 0, 100)
        turn = turn_of(DAY, "UTC", amount, budget.carried, MIDNIGHT + SETTLE)
        assert turn is not None
        assert left_of(turn, 70, 1000) == Carried(MIDNIGHT, 30, 100)


def test_what_was_left_while_nobody_counted_is_not_made_up_for() -> None:
    turn = turn_of(DAY, "UTC", 100, Carried(at("2027-01-10T00:00"), 50, 100), MIDNIGHT + SETTLE)
    assert turn is not None
    assert (turn.over.since, turn.of) == (at("2027-01-15T00:00"), 100)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([Period.HOUR, Period.DAY, Period.WEEK, Period.MONTH]),
    st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia"]),
    st.lists(st.integers(-90_000, 400_000), min_size=1, max_size=12),
    st.integers(0, 150),
)
def test_however_the_clock_goes_no_period_is_carried_into_twice_and_never_more_than_was_left(
    period: Period, zone: str, steps: list[int], spent: int
) -> None:
    now = at("2027-04-03T10:00")
    carried = no_carry_yet(period, zone, now)
    into = {carried.since}
    for step in steps:
        now += timedelta(seconds=step)
        turn = turn_of(period, zone, 100, carried, now)
        if turn is None:
            continue
        if turn.is_first:
            assert turn.since not in into
        into.add(turn.since)
        after = left_of(turn, spent, 60)
        assert after.since >= carried.since
        assert 0 <= after.amount <= min(60, turn.of)
        assert after.amount + spent <= max(turn.of, spent)
        carried = after


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"window_s": 3600, "carry_most": 5}, "Only a budget with a period of the calendar carries over"),
        ({"carry_most": 5}, "Only a budget with a period of the calendar carries over"),
        ({"period": DAY, "carry_most": 0}, "Say how much at most"),
        ({"period": DAY, "window_s": 3600}, "a period of the calendar or a window that moves, not both"),
        ({"window_s": 5400}, "A window is of whole hours"),
        ({"window_s": 367 * 86_400}, "A window is of whole hours, at most 366 days"),
        ({"period": DAY, "time_zone": "Mars/Olympus"}, "There is no time zone Mars/Olympus"),
    ],
)
def test_budgets_that_make_no_sense_are_refused(asked: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        plan_budget(BudgetUnit.TOKENS, 100, **{"period": Period.EVER, "time_zone": "", **asked})  # type: ignore[arg-type]


def test_the_ledger_is_kept_from_where_a_window_or_the_period_before_begins() -> None:
    made, now = at("2026-11-01T00:00"), at("2027-01-16T12:00")
    for asked, since in (
        ({"period": DAY}, "2027-01-16T00:00"),
        ({"period": DAY, "carry_most": 5}, "2027-01-15T00:00"),
        ({"period": Period.EVER, "window_s": 86_400}, "2027-01-15T12:00"),
        ({"period": Period.EVER}, "2026-11-01T00:00"),
    ):
        budget = order_budget(plan_budget(BudgetUnit.TOKENS, 100, time_zone="", **asked), made)
        assert budget.counted_from(now) == at(since), asked


async def test_what_is_left_is_carried_over_by_the_ledger_and_told_and_a_window_is_told_by_its_steps(
    admin_database_url: str,
) -> None:
    clock, changes = ManualClock(at("2027-01-15T12:00").timestamp()), Changes()

    def now() -> datetime:
        return datetime.fromtimestamp(clock.now(), UTC)

    async with open_database(admin_database_url, "admin") as database:
        await database.migrate(MIGRATIONS)
        replicas = [Carrying(database, changes, clock) for _ in range(2)]

        async def told(user: User) -> dict[str, admin_pb2.Budget]:
            async with database.reading() as connection:
                policy = await read_policy(connection, Since(0, is_snapshot=True), 1, now())
            (mine,) = [one for one in policy.users if one.user_id == user.id]
            return {budget.id: budget for budget in mine.limits.budgets}

        async def pass_to(moment: str) -> None:
            clock.advance(at(moment).timestamp() - clock.now())
            await asyncio.gather(*(replica.once() for replica in replicas))

        async with changes.make(database) as change:
            alice = await add_user(change, UserOrder("alice", "everyone", Role.MEMBER), now())
            subject = Subject(SubjectKind.USER, alice.id, alice.name)
            a_day = order_budget(plan_budget(BudgetUnit.TOKENS, 100, DAY, "UTC", carry_most=50), now())
            last_day = order_budget(plan_budget(BudgetUnit.TOKENS, 100, Period.EVER, "", window_s=86_400), now())
            for budget in (a_day, last_day):
                await add_budget(change, subject, budget, "admin")
        await spend(database, now, alice, "2027-01-15T13:20", 40)
        await spend(database, now, alice, "2027-01-15T13:50", 30)
        await pass_to("2027-01-16T00:00:29")
        assert (await told(alice))[a_day.id].carried == 0
        await pass_to("2027-01-16T00:00:30")
        day = (await told(alice))[a_day.id]
        assert (day.amount, day.carried, day.spent) == (100, 30, 0)
        assert day.carried_since_us == round(at("2027-01-16T00:00").timestamp()) * 1_000_000
        window = (await told(alice))[last_day.id]
        hour = round(at("2027-01-15T13:00").timestamp()) * 1_000_000
        assert [(step.start_us, step.spent) for step in window.steps] == [(hour, 70)]
        assert (window.window_s, window.spent, window.period) == (86_400, 70, 0)
        # A row of yesterday comes in late: it is counted again.
        await spend(database, now, alice, "2027-01-15T23:59", 10)
        await pass_to((at("2027-01-16T00:00:30") + AGAIN).replace(tzinfo=None).isoformat())
        assert (await told(alice))[a_day.id].carried == 20
        # The clock steps back over midnight, and comes again.
        version = changes.version
        await pass_to("2027-01-15T23:00")
        await pass_to("2027-01-16T03:00")
        assert (changes.version, (await told(alice))[a_day.id].carried) == (version, 20)
        await pass_to("2027-01-17T00:01")
        assert (await told(alice))[a_day.id].carried == 50, "no more than its cap"
        async with changes.make(database) as change:
            _, kept = await budget_with_id(change.connection, a_day.id)
            assert kept.carried is not None
            assert kept.carried.of == 120
            await change_budget(change, subject, carrying(kept, None, now()))
        await pass_to("2027-01-18T00:01")
        day = (await told(alice))[a_day.id]
        assert day.carried_since_us == round(at("2027-01-17T00:00").timestamp()) * 1_000_000, "no more is carried"
        assert [step.spent for step in (await told(alice))[last_day.id].steps] == []


async def spend(database: Database, now: Callable[[], datetime], user: User, moment: str, tokens: int) -> None:
    began = at(moment)
    record = usage_pb2.UsageRecord(
        ledger_id=new_ledger_id(began.timestamp()),
        user_id=user.id,
        group_id=user.group_id,
        key_id="k",
        model="m",
        outcome=types_pb2.OUTCOME_FINISHED,
        started_at_us=round(began.timestamp() * 1_000_000),
        usage=types_pb2.TokenUsage(completion_tokens=tokens),
    )
    batch = usage_pb2.UsageBatch(records=[record]).SerializeToString()
    parsed = parse_batch("forebay.usage.test", batch, max(now(), began))
    assert not parsed.poison
    await LedgerStore(database).write(parsed.rows, ())
