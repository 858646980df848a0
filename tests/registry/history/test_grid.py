"""Spans of time, cut into pieces; and the spans that nobody can be told of."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from forebay.errors import BadInput
from forebay_registry.history.grid import MOST_BUCKETS, Grid, Kept, Resolution, grid

DAY = 86_400.0
KEPT = Kept(14 * DAY, 400 * DAY)
NOW = datetime(2027, 4, 1, 12, 30, tzinfo=UTC).timestamp()


def cut(last_s: float, resolution_s: int = 0, zone: str = "", until: float = NOW) -> Grid:
    return grid(until - last_s, until, resolution_s, zone, NOW, KEPT)


@pytest.mark.parametrize(
    ("last_s", "expected"),
    [
        (600.0, Resolution.MINUTE),
        (10 * 3600.0, Resolution.MINUTE),
        (2 * DAY, Resolution.FIVE_MINUTES),
        (7 * DAY, Resolution.HOUR),
        (20 * DAY, Resolution.HOUR),
        (300 * DAY, Resolution.DAY),
    ],
)
def test_the_finest_resolution_that_can_be_looked_at_is_chosen(last_s: float, expected: Resolution) -> None:
    assert cut(last_s).resolution is expected


def test_minutes_that_are_no_longer_kept_are_not_chosen_and_not_promised() -> None:
    long_ago = NOW - 30 * DAY
    assert cut(3600.0, until=long_ago).resolution is Resolution.HOUR
    with pytest.raises(BadInput, match="Minutes are kept for 14 days"):
        cut(3600.0, 60, until=long_ago)


def test_buckets_begin_on_whole_pieces_and_cover_the_span() -> None:
    edges = cut(100.0, 300, until=NOW - 60).edges  # 12:27:20 to 12:29:00
    assert [f"{e:%H:%M}" for e in edges] == ["12:25", "12:30"]


def test_days_are_those_of_their_zone_also_when_clocks_change() -> None:
    edges = cut(6 * DAY, 86_400, "Europe/Berlin").edges
    assert [f"{e:%d %H}" for e in edges] == ["25 23", "26 23", "27 23", "28 22", "29 22", "30 22", "31 22", "01 22"]


@pytest.mark.parametrize(
    ("since", "until", "resolution_s", "zone", "why"),
    [
        (NOW, NOW - 60, 0, "", "ends before it begins"),
        (NOW - 60, NOW - 60, 0, "", "ends before it begins"),
        (-5.0, NOW, 0, "", "after 1970"),
        (NOW + 60, NOW + 90, 0, "", "has not come yet"),
        (NOW - 500 * DAY, NOW, 0, "", "kept for 400 days"),
        (NOW - 60, NOW, 61, "", "1m, 5m, 1h or 1d"),
        (NOW - 60, NOW, 0, "Europe/Berlim", "Did you mean Europe/Berlin"),
        (NOW - 60, NOW, 0, "../../etc/passwd", "not a time zone"),
    ],
)
def test_what_cannot_be_answered_is_said_in_one_sentence(
    since: float, until: float, resolution_s: int, zone: str, why: str
) -> None:
    with pytest.raises(BadInput, match=why):
        grid(since, until, resolution_s, zone, NOW, KEPT)


def test_a_span_that_would_be_too_many_points_is_refused_with_the_limit() -> None:
    kept = Kept(100 * DAY, 400 * DAY)
    with pytest.raises(BadInput, match=f"more than {MOST_BUCKETS} points"):
        grid(NOW - 30 * DAY, NOW, 60, "", NOW, kept)


def test_an_end_far_in_the_future_is_cut_to_now() -> None:
    assert grid(NOW - 3600, NOW * 1000, 3600, "", NOW, KEPT).buckets <= 26
