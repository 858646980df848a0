"""How often many engines are looked at."""

from __future__ import annotations

from forebay_registry.health.pace import Pace

PACE = Pace(looks_per_s=50.0, most_s=15.0)


def test_a_few_are_looked_at_as_often_as_they_should_be_and_many_share_what_there_is() -> None:
    assert PACE.rest_s(2.0, crowd=100, jitter=0.5) == 2.0
    assert PACE.rest_s(2.0, crowd=500, jitter=0.5) == 10.0
    assert PACE.rest_s(2.0, crowd=5000, jitter=0.5) == 15.0
    assert PACE.rest_s(30.0, crowd=500, jitter=0.5) == 30.0, "an address that is seldom asked is not asked more often"
    assert (PACE.rest_s(2.0, 500, 0.0), PACE.rest_s(2.0, 500, 1.0)) == (9.0, 11.0)


def test_first_looks_are_spread_and_those_at_what_is_known_have_time() -> None:
    assert PACE.first_look_s(1, 0.9, is_recalled=False) == 0.0
    assert PACE.first_look_s(500, 0.5, is_recalled=True) == 5.0
    assert PACE.first_look_s(600, 1.0, is_recalled=False) == 4.0
    assert PACE.gap_s == 0.01
    assert PACE.second_look_s(12.0, 600, 0.0) == 4.0
    assert PACE.second_look_s(12.0, 600, 1.0) == 12.0
    assert PACE.second_look_s(2.0, 3, 0.0) == 2.0, "a few make no wave"
    assert PACE.first_look_s(100_000, 1.0, is_recalled=True) == 15.0
