"""Logs: an event with fields."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from forebay.telemetry import JsonLines, ReadableLines, set_up_logs


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger("tests").makeRecord("tests", logging.INFO, __file__, 1, message, args, None, extra=extra)


def test_a_line_is_one_json_object_with_the_event_and_its_fields() -> None:
    line = JsonLines("gateway").format(record("request %s", "dispatched", action="dispatch", waited_s=0.25))
    assert "\n" not in line
    told = json.loads(line)
    at = datetime.fromisoformat(told.pop("time"))
    assert at.tzinfo is not None
    assert told == {
        "level": "info",
        "service": "gateway",
        "event": "request dispatched",
        "action": "dispatch",
        "waited_s": 0.25,
    }


def test_a_field_that_json_does_not_know_becomes_text() -> None:
    assert json.loads(JsonLines("x").format(record("e", path=Path("/a"))))["path"] == "/a"


def test_an_error_comes_with_its_traceback_on_the_same_line() -> None:
    try:
        raise ArithmeticError("one\ntwo")
    except ArithmeticError:
        made = logging.getLogger("tests").makeRecord("tests", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())
    line = JsonLines("x").format(made)
    assert "\n" not in line
    assert "ArithmeticError: one" in json.loads(line)["error"]
    assert ReadableLines().format(made).splitlines()[1].startswith("Traceback")


def test_for_a_person_it_is_one_readable_line() -> None:
    line = ReadableLines().format(record("request dispatched", action="dispatch", backend="b1"))
    assert line.split(" ", 2)[1:] == ["info", "   request dispatched action=dispatch backend=b1"]
    assert not ReadableLines().format(record("nothing more")).endswith(" ")


def test_set_up_logs_writes_json_where_nobody_looks_and_hushes_the_chatty(capfd: pytest.CaptureFixture[str]) -> None:
    set_up_logs("gateway", "info")
    logging.getLogger("forebay.bus").info("bus connected", extra={"action": "bus_connected"})
    logging.getLogger("forebay.bus").debug("not at this level")
    logging.getLogger("aiohttp.access").info("GET /")
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["action"] == "bus_connected"
