"""Numbers, times and states as people read them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from forebay.errors import BadInput
from forebay.wire.v1 import registry_pb2, telemetry_pb2
from forebay_admin.cli.output import print_table
from forebay_admin.cli.plain import plain
from forebay_admin.cli.words import age, ahead, coloured, count, parse_duration


def test_an_age_is_told_in_the_unit_that_says_enough() -> None:
    now = 1_800_000_000.0
    ages = [age(round((now - seconds) * 1_000_000), now) for seconds in (3, 150, 3600 * 5, 86_400 * 12)]
    assert ages == ["3 s ago", "2 min ago", "5 h ago", "12 days ago"]


def test_a_clock_that_is_behind_makes_nothing_younger_than_now() -> None:
    assert age(1_000_000, 0.0) == "0 s ago"


def test_what_is_over_has_expired() -> None:
    assert ahead(1_000_000, 2.0) == "expired"
    assert ahead(7_202_000_000, 2.0) == "in 2 h"


def test_thousands_are_set_apart() -> None:
    assert count(1234567) == "1,234,567"


def test_health_is_a_word_with_a_colour() -> None:
    assert coloured("healthy") == "[green]healthy[/green]"
    assert coloured("standing on its head") == "standing on its head"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("24h", 86_400), ("7d", 604_800), ("2w", 1_209_600)]
)
def test_a_length_of_time_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "24", "-1h", "1y", "1e3h", "99999999w"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_duration(text)


def test_a_terminal_obeys_nothing_that_others_called_something(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("Name", "Process"), [("gpu-1", "evil\x1b[2J\x9b1m"), ("gpu-2", "two\nlines")], nothing="")
    shown = capsys.readouterr().out
    assert "evil?[2J?1m" in shown
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert "two" in shown
    assert "lines" in shown


def test_json_tells_times_words_and_unknowns() -> None:
    node = registry_pb2.Node(
        id="n1",
        name="gpu-box",
        enrolled_at_us=1_800_000_000_000_000,
        last_sample=telemetry_pb2.TelemetrySample(
            gpu_state=telemetry_pb2.GPU_STATE_NO_DRIVER, host=telemetry_pb2.HostSample(cpu_count=2)
        ),
    )
    told = plain(node)
    assert told["enrolled_at"] == "2027-01-15T08:00:00.000Z"
    assert told["heard_at"] is None
    assert told["last_sample"]["gpu_state"] == "no_driver"
    assert told["last_sample"]["host"]["cpu_count"] == 2
    assert told["last_sample"]["host"]["cpu_percent"] is None
    assert plain(registry_pb2.Backend(health=registry_pb2.BACKEND_HEALTH_HEALTHY))["health"] == "healthy"
    assert plain(registry_pb2.Node())["last_sample"] is None
