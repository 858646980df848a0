"""The ledger's name for a request."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.ledger_id import day_of, new_ledger_id, time_of


@given(st.floats(min_value=0, max_value=2**48 / 1000 - 1))
def test_it_is_a_uuid_of_version_7_that_holds_its_time(now: float) -> None:
    made = new_ledger_id(now)
    as_uuid = uuid.UUID(bytes=made)
    assert (as_uuid.version, as_uuid.variant) == (7, uuid.RFC_4122)
    assert time_of(made) == pytest.approx(now, abs=0.0011)


def test_later_ids_sort_after_earlier_ones() -> None:
    ids = [new_ledger_id(1_800_000_000 + n / 1000) for n in range(1000)]
    assert ids == sorted(ids)


def test_ids_of_one_moment_differ() -> None:
    assert len({new_ledger_id(1_800_000_000.0) for _ in range(2000)}) == 2000


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        (datetime(2026, 12, 31, 23, 59, 59, 999000, tzinfo=UTC), date(2026, 12, 31)),
        (datetime(2027, 1, 1, tzinfo=UTC), date(2027, 1, 1)),
    ],
)
def test_its_day_is_that_of_its_own_time_in_utc(moment: datetime, day: date) -> None:
    assert day_of(new_ledger_id(moment.timestamp())) == day
