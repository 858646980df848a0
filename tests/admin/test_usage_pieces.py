"""Which sums answer a question about a time: each part of it once, and nothing that is out of date."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.errors import BadInput
from forebay_admin.ledger.partitions import Length, droppable
from forebay_admin.ledger.retention import Keeping, keep_from
from forebay_admin.ledger.rollup_rules import Touched, due, source_of
from forebay_admin.ledger.usage_pieces import Piece, Standing, pieces
from forebay_admin.ledger.usage_question import Bucket, edges_of
from forebay_admin.ledger.usage_sums import COLUMNS, Column, Cut, Span, cut_with

DAY = datetime(2026, 11, 30, tzinfo=UTC)
NOW = DAY + timedelta(hours=10, minutes=20, seconds=30)
NEXT = timedelta(days=1)


def at(hours: float = 0, minutes: float = 0, seconds: float = 0) -> datetime:
    return DAY + timedelta(hours=hours, minutes=minutes, seconds=seconds)


def test_whole_days_are_days_and_the_edges_are_as_fine_as_they_must_be() -> None:
    assert pieces([at(-25, 59, 30), NOW], Standing()) == [
        Piece(None, at(-25, 59, 30), at(-24)),
        Piece(Span.DAY, at(-24), at()),
        Piece(Span.HOUR, at(), at(10)),
        Piece(Span.MINUTE, at(10), at(10, 20)),
        Piece(None, at(10, 20), NOW),
    ]


def test_what_a_row_came_in_for_since_is_asked_of_what_is_finer() -> None:
    standing = Standing({Span.MINUTE: {at(3, 7)}, Span.HOUR: {at(5)}})
    assert pieces([at(), at(24)], standing) == [
        Piece(Span.HOUR, at(), at(3)),
        Piece(Span.MINUTE, at(3), at(3, 7)),
        Piece(None, at(3, 7), at(3, 8)),
        Piece(Span.MINUTE, at(3, 8), at(4)),
        Piece(Span.HOUR, at(4), at(5)),
        Piece(Span.MINUTE, at(5), at(6)),
        Piece(Span.HOUR, at(6), at(24)),
    ]


def test_where_the_finer_sums_are_gone_a_day_counts_where_it_begins() -> None:
    gone = Standing(kept={None: at(48), Span.MINUTE: at(48), Span.HOUR: at(48)})
    assert pieces([at(1), at(25)], gone) == [Piece(Span.DAY, at(24), at(48))]
    assert pieces([at(-1), at(1), at(25)], gone) == [
        Piece(Span.DAY, at(), at(24)),
        Piece(Span.DAY, at(24), at(48)),
    ]


moments = st.integers(0, 4 * 86_400).map(lambda seconds: DAY + timedelta(seconds=seconds))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(moments, min_size=2, max_size=6, unique=True).map(sorted),
    st.dictionaries(st.sampled_from(list(Span)), st.sets(moments, max_size=4)),
)
def test_each_moment_is_in_one_piece_and_none_that_was_touched_in_a_longer_one(
    edges: list[datetime], touched: dict[Span, set[datetime]]
) -> None:
    marks = {span: {span.of(one) for one in some} for span, some in touched.items()}
    found = pieces(edges, Standing(marks))
    assert found[0].since == edges[0]
    assert found[-1].until == edges[-1]
    assert all(before.until == after.since for before, after in pairwise(found))
    assert all(any(a <= one.since and one.until <= b for a, b in pairwise(edges)) for one in found)
    for piece in found:
        if piece.source is not None:
            length = piece.source.length
            assert (piece.since - DAY) % length == timedelta() == (piece.until - piece.since) % length
            for span, some in marks.items():
                if span.length <= length:
                    assert not any(piece.since <= one < piece.until for one in some)


def test_the_cut_with_the_fewest_rows_is_asked() -> None:
    assert cut_with((), Span.DAY) is Cut.FLEET
    assert cut_with((Column.GROUP, Column.MODEL), Span.HOUR) is Cut.GROUPS
    assert cut_with((Column.USER,), Span.HOUR) is Cut.USERS
    assert cut_with((Column.USER, Column.MODEL), Span.HOUR) is Cut.PEOPLE
    assert cut_with((Column.GROUP, Column.BACKEND), Span.HOUR) is Cut.WHOLE
    assert cut_with((), Span.MINUTE) is Cut.WHOLE
    assert set(COLUMNS[Cut.WHOLE]) == set(Column)


def test_a_minute_is_due_once_it_is_over_and_an_hour_once_its_minutes_are_made() -> None:
    first = Touched(Span.MINUTE, at(10, 19), at(10, 19, 5))
    running = Touched(Span.MINUTE, at(10, 20), at(10, 20, 1))
    hour = Touched(Span.HOUR, at(9), at(10, 0, 5))
    found = due([first, running, hour], NOW)
    assert (found[Span.MINUTE], found[Span.HOUR]) == ([at(10, 19)], [at(9)])
    late = Touched(Span.MINUTE, at(9, 30), at(10, 20, 25))
    assert due([hour, late], NOW + timedelta(minutes=1))[Span.HOUR] == []


def test_late_rows_of_an_old_minute_are_waited_for() -> None:
    late = Touched(Span.MINUTE, at(9, 59), at(10, 20))
    assert due([late], at(10, 24))[Span.MINUTE] == []
    assert due([late], at(10, 26))[Span.MINUTE] == [at(9, 59)]
    older = Touched(Span.MINUTE, at(-48), at(10, 20))
    assert due([older], at(10, 31))[Span.MINUTE] == [at(-48)]


def test_sums_are_made_of_the_ledger_where_the_shorter_ones_are_gone_and_never_of_nothing() -> None:
    kept = {Span.MINUTE: at(24), None: at(-24)}
    assert source_of(Span.HOUR, at(24), kept) == (True, Span.MINUTE)
    assert source_of(Span.HOUR, at(), kept) == (True, None)
    assert source_of(Span.HOUR, at(-48), kept) == (False, None)
    assert source_of(Span.MINUTE, at(-48), kept) == (False, None)
    assert source_of(Span.DAY, at(-48), kept) == (True, Span.HOUR)


@pytest.mark.parametrize(
    ("bucket", "zone", "since", "until", "count", "second"),
    [
        (Bucket.DAY, "UTC", at(-12), at(13), 2, at()),
        (Bucket.DAY, "Europe/Berlin", at(-12), at(13), 2, at(-1)),
        (Bucket.HOUR, "Asia/Kolkata", at(0), at(2), 3, at(0, 30)),
        (
            Bucket.HOUR,
            "Europe/Berlin",
            datetime(2026, 10, 25, tzinfo=UTC),
            datetime(2026, 10, 25, 3, tzinfo=UTC),
            3,
            None,
        ),
        (
            Bucket.DAY,
            "Europe/Berlin",
            datetime(2026, 10, 24, 22, tzinfo=UTC),
            datetime(2026, 10, 25, 23, tzinfo=UTC),
            1,
            None,
        ),
        (Bucket.MONTH, "UTC", at(), at(48), 2, at(24)),
        (Bucket.WEEK, "UTC", at(-24), at(24), 2, at()),
        (Bucket.MINUTE, "UTC", at(0, 0, 30), at(0, 2), 2, at(0, 1)),
        (Bucket.ALL, "UTC", at(), at(48), 1, None),
    ],
)
def test_buckets_follow_the_calendar_of_a_zone(
    bucket: Bucket, zone: str, since: datetime, until: datetime, count: int, second: datetime | None
) -> None:
    edges = edges_of(bucket, zone, since, until)
    assert (edges[0], edges[-1], len(edges) - 1) == (since, until, count)
    assert second is None or edges[1] == second


@pytest.mark.parametrize(
    ("bucket", "since", "until", "why"),
    [
        (Bucket.ALL, at(1), at(1), "ends before it begins"),
        (Bucket.MINUTE, at(), at(24 * 10), "more than 5,000 minutes"),
        (Bucket.ALL, at(-24 * 366 * 21), at(), "20 years"),
    ],
)
def test_a_span_that_makes_no_sense_is_refused(bucket: Bucket, since: datetime, until: datetime, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        edges_of(bucket, "UTC", since, until)


def test_what_is_older_than_is_kept_goes_but_for_what_waits_and_what_budgets_count() -> None:
    today = at().date()
    keeping = Keeping(ledger=10, minutes=5, hours=20)
    free = keep_from(keeping, today, (), ())
    assert free == {
        None: today - timedelta(days=10),
        Span.MINUTE: today - timedelta(days=5),
        Span.HOUR: today - timedelta(days=20),
    }
    waits = keep_from(keeping, today, [at(-24 * 7)], ())
    assert waits[Span.MINUTE] == today - timedelta(days=7)
    counted = keep_from(keeping, today, (), [at(-24 * 30), at()])
    assert (counted[None], counted[Span.MINUTE]) == (today - timedelta(days=31), free[Span.MINUTE])


def test_a_partition_goes_whole_or_not_at_all() -> None:
    months = [date(2026, 9, 1), date(2026, 10, 1), date(2026, 11, 1)]
    assert droppable(months, Length.MONTH, date(2026, 11, 15)) == months[:2]
    assert droppable(months, Length.MONTH, date(2026, 10, 31)) == months[:1]
    assert droppable([date(2025, 1, 1)], Length.YEAR, date(2026, 1, 1)) == [date(2025, 1, 1)]


@pytest.mark.parametrize(
    ("keeping", "why"),
    [
        (Keeping(ledger=2), "ledger_days: it must be 3 at least"),
        (Keeping(minutes=-1), "usage_minute_days: it must be"),
        (Keeping(minutes=0, hours=400), "longer spans must be kept as long"),
        (Keeping(), ""),
        (Keeping(ledger=0, minutes=0, hours=0), ""),
    ],
)
def test_what_cannot_be_kept_that_way_is_said_at_the_start(keeping: Keeping, why: str) -> None:
    assert keeping.problem().startswith(why) if not why else why in keeping.problem()
