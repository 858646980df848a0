"""Minutes: what becomes of their samples, and of their parts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_registry.history.rollup import Energy, Minute, Slot, add, merge
from forebay_registry.history.series import Kind, Series

GPU = Series(Kind.GPU, "no-1/0")
NUMBERS = st.none() | st.floats(-1e6, 1e6)
READINGS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=12)


def minute(readings: Sequence[Sequence[float | None]], energy: Energy | None = None) -> Minute:
    slot = Slot(2)
    for reading in readings:
        slot.add(reading)
    return slot.close(GPU, 60, energy or Energy())


def test_a_minute_has_the_least_the_mean_the_most_and_the_last_of_what_was_told() -> None:
    told = minute([(3.0, None), (1.0, None), (8.0, None)])
    assert (told.mins, told.means, told.maxs, told.lasts) == ([1.0, None], [4.0, None], [8.0, None], [8.0, None])
    assert told.samples == [3, 0]


def test_a_zero_that_was_told_is_a_zero() -> None:
    assert minute([(0.0, None)]).means == [0.0, None]


@settings(max_examples=30)
@given(READINGS, READINGS)
def test_two_parts_of_a_minute_make_the_minute_that_it_would_have_been(
    first: list[tuple[float | None, float | None]], second: list[tuple[float | None, float | None]]
) -> None:
    whole, joined = minute(first + second), merge(minute(first), minute(second))
    assert (joined.samples, joined.mins, joined.maxs, joined.lasts) == (
        whole.samples,
        whole.mins,
        whole.maxs,
        whole.lasts,
    )
    assert joined.means == [None if m is None else pytest.approx(m, abs=1e-6) for m in whole.means]


def test_a_part_that_knows_fewer_metrics_or_none_takes_nothing_away() -> None:
    full, bare = minute([(1.0, 2.0)]), Minute(GPU, 60, [], [], [], [], [], Energy(gpu_wh=0.5))
    assert merge(full, bare).means == merge(bare, full).means == [1.0, 2.0]
    assert merge(bare, full).energy.gpu_wh == 0.5


def test_energy_is_added_and_what_is_not_known_stays_so() -> None:
    assert add(Energy(1.0, None, 0.5, 30.0), Energy(2.0, None, None, 30.0, True)) == Energy(3.0, None, 0.5, 60.0, True)
