"""Clocks."""

from __future__ import annotations

import time

import pytest

from forebay.clock import Clock, ManualClock, SystemClock, micros


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock()])
def test_a_clock_never_goes_back(clock: Clock) -> None:
    readings = [(clock.now(), clock.monotonic()) for _ in range(100)]
    assert readings == sorted(readings)


def test_the_clock_of_the_system_tells_its_time_and_counts_suspend() -> None:
    clock = SystemClock()
    assert abs(clock.now() - time.time()) < 1
    assert abs(clock.monotonic() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1


def test_a_manual_clock_moves_when_it_is_told_to_and_only_then() -> None:
    clock = ManualClock(now=100.0)
    before = clock.monotonic()
    assert (clock.now(), clock.now()) == (100.0, 100.0)
    clock.advance(2.5)
    assert (clock.now(), clock.monotonic() - before) == (102.5, 2.5)


@pytest.mark.parametrize(
    ("seconds", "us"), [(0, 0), (1.5, 1_500_000), (1e-7, 0), (1.8e9 + 0.125, 1_800_000_000_125_000)]
)
def test_seconds_are_whole_microseconds_on_the_wire(seconds: float, us: int) -> None:
    assert micros(seconds) == us
