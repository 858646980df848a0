"""Requests a minute of one backend."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from forebay_scheduler.placing.request_pace import RequestPace


@given(st.integers(1, 90), st.lists(st.floats(0, 30), max_size=200))
def test_no_minute_has_more_requests_than_the_cap(per_minute: int, gaps: list[float]) -> None:
    pace = RequestPace(per_minute)
    now = 0.0
    taken: list[float] = []
    for gap in gaps:
        now += gap
        while pace.next_at <= now and len(taken) < 500:
            pace.take(now)
            taken.append(now)
    for start in taken:
        # A hair less than a minute: floats.
        assert sum(start <= moment < start + 59.999 for moment in taken) <= per_minute


def test_a_patient_sender_gets_nearly_all_of_it() -> None:
    pace = RequestPace(100)
    now, taken = 0.0, 0
    while now < 600.0:
        now = max(now, pace.next_at)
        pace.take(now)
        taken += 1
    assert 950 <= taken <= 1010
