"""Logs: an event with fields."""

from __future__ import annotations

import json
import logging
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import BadSettings
from forebay.syslog import PlaceHandler, parse_place
from forebay.telemetry import (
    JsonLines,
    ReadableLines,
    SyslogLines,
    dropped_lines,
    read_log_settings,
    set_up_logs,
)


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
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
    assert ReadableLines().format(made).splitlines()[1] == "    Traceback (most recent call last):"


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


# --- RFC 5424 ---------------------------------------------------------------------------------------------------------

SYSLOG = re.compile(
    r"<(?P<pri>\d{1,3})>1 (?P<at>\S+) (?P<host>[\x21-\x7e]{1,255}) (?P<app>[\x21-\x7e]{1,48}) (?P<process>\d+) "
    r"(?P<id>[\x21-\x7e]{1,32}) (?P<data>-|\[forebay@32473(?P<fields>(?: [^\s=\]\"]{1,32}=\"(?:[^\"\\\]]|\\.)*\")*)\]) "
    "\ufeff(?P<event>.*)"
)
HOSTILE = (
    "a\nb",
    "a\r\nJan  1 00:00:00 host sshd[1]: accepted",
    "<0>1 2026-01-01T00:00:00Z evil app 1 - - forged",
    'quote " bracket ] backslash \\ end',
    '"] [other@1 a="b',
    "\x00\x1b[2J\x7f\x85\u2028\u202e",
    "\ud800 lone",
    "ü" * 20_000,
)


def parsed(line: str) -> tuple[dict[str, str], dict[str, str]]:
    found = SYSLOG.fullmatch(line)
    assert found, line[:300]
    fields = re.findall(r' ([^\s=\]"]{1,32})="((?:[^"\\\]]|\\.)*)"', found["fields"] or "")
    return found.groupdict(), {name: re.sub(r"\\(.)", r"\1", value) for name, value in fields}


def test_a_syslog_line_is_rfc_5424_with_the_fields_as_structured_data() -> None:
    line = SyslogLines("gateway").format(record("request dispatched", action="dispatch", waited_s=0.25))
    head, fields = parsed(line)
    assert head["pri"] == str(3 * 8 + 6)
    assert (head["app"], head["id"], head["event"]) == ("forebay-gateway", "dispatch", "request dispatched")
    assert datetime.fromisoformat(head["at"]).tzinfo is not None
    assert fields == {"action": "dispatch", "waited_s": "0.25"}


@pytest.mark.parametrize(("level", "severity"), [(10, 7), (20, 6), (30, 4), (40, 3), (50, 2)])
def test_levels_become_severities(level: int, severity: int) -> None:
    made = logging.getLogger("tests").makeRecord("tests", level, __file__, 1, "x", (), None)
    assert parsed(SyslogLines("x").format(made))[0]["pri"] == str(24 + severity)


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_no_value_forges_a_line_a_field_or_a_head(hostile: str) -> None:
    made = record("event %s", hostile, action=hostile, name_=hostile, **{"x y=]": hostile})
    line = SyslogLines("gateway").format(made)
    assert len(line.encode()) <= 8192
    head, fields = parsed(line)
    assert head["event"].startswith("event ")
    assert set(fields) - {"left_out"} == {"action", "name_", "x_y__"} - ({"x_y__"} if "left_out" in fields else set())
    for text in (line, ReadableLines().format(made), JsonLines("gateway").format(made)):
        assert len(text.splitlines()) == 1
        assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u202e]", text)


def test_for_a_person_a_value_with_blanks_is_quoted_so_that_it_names_no_field() -> None:
    line = ReadableLines().format(record("refused", user="x level=error action=grant", empty=""))
    assert line.endswith('refused user="x level=error action=grant" empty=""')


def test_what_an_exception_says_stays_below_its_event() -> None:
    try:
        raise ArithmeticError("one\n12:00:00 error   forged action=x")
    except ArithmeticError:
        made = logging.getLogger("tests").makeRecord("tests", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())
    first, *rest = ReadableLines().format(made).split("\n")
    assert first.endswith("failed")
    assert all(line.startswith("    ") for line in rest)
    assert parsed(SyslogLines("x").format(made))[1]["error"].count("\\n") >= 3


def test_too_many_fields_are_left_out_and_said_to_be() -> None:
    line = SyslogLines("x").format(record("e", **{f"field_{n}": "y" * 1000 for n in range(20)}))
    assert len(line.encode()) <= 8192
    assert int(parsed(line)[1]["left_out"]) == 14


@pytest.mark.parametrize(
    "fields",
    [
        {"error": "Traceback" + "x" * 100_000 + "ValueError: what it was", "action": "fail"},
        {"error": "\U0001f600" * 20_000, "action": "\x00" * 20_000},
        {"action": "fail", "list": ["ü" * 100] * 1000, "number": 7},
        {"action": "fail", **{f"field_{n}": "\U0001f600" * 1000 for n in range(200)}},
        {"action": "fail", **{f"{n} " + "y" * 20_000: "z" for n in range(20)}},
    ],
    ids=["long", "escaped", "nested", "many", "long names"],
)
@pytest.mark.parametrize("most", [2048, 8192])
def test_a_json_line_that_is_too_long_is_cut_and_a_whole_object_still(fields: dict[str, Any], most: int) -> None:
    line = JsonLines("gateway", most).format(record("what happened", **fields))
    assert most // 6 < len(line.encode()) <= most
    told = json.loads(line)
    assert (told["event"], told["service"], told["level"]) == ("what happened", "gateway", "info")
    assert told["action"][:4] == fields["action"][:4]
    assert "left_out" in told or told.keys() >= fields.keys()
    if "left_out" in told:
        assert len(told) - 1 + told["left_out"] == len(fields) + 4
    if "error" in fields:
        assert told["error"][:20] == fields["error"][:20]
        assert told["error"][-20:] == fields["error"][-20:]


# --- where to ---------------------------------------------------------------------------------------------------------


def test_lines_go_to_a_datagram_socket_of_the_machine(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        log.settimeout(20)
        set_up_logs("gateway", to=f"unix:{tmp_path}/log")
        logging.getLogger("forebay.x").info("hello", extra={"action": "greet"})
        head, fields = parsed(log.recv(9000).decode())
    assert (head["event"], fields) == ("hello", {"action": "greet"})


def test_a_json_line_of_any_length_goes_by_udp_as_one_whole_object() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as log:
        log.bind(("127.0.0.1", 0))
        log.settimeout(20)
        set_up_logs("gateway", form="json", to=f"udp://127.0.0.1:{log.getsockname()[1]}")
        logging.getLogger("forebay.x").info("hello", extra={"why": "ü" * 100_000})
        told = json.loads(log.recv(70_000))
        assert (told["event"], told["why"][:100]) == ("hello", "ü" * 100)
        assert dropped_lines() == 0


def test_a_line_for_people_of_any_length_goes_by_udp_as_far_as_there_is_room() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as log:
        log.bind(("127.0.0.1", 0))
        log.settimeout(20)
        set_up_logs("gateway", form="text", to=f"udp://127.0.0.1:{log.getsockname()[1]}")
        logging.getLogger("forebay.x").info("ü" * 100_000)
        assert 8000 < len(log.recv(70_000).decode().encode()) <= 8192


def test_lines_go_by_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as log:
        log.bind(("127.0.0.1", 0))
        log.settimeout(20)
        set_up_logs("gateway", to=f"udp://127.0.0.1:{log.getsockname()[1]}")
        logging.getLogger("forebay.x").warning("hello")
        assert parsed(log.recv(9000).decode())[0]["pri"] == "28"


def test_over_tcp_each_line_is_preceded_by_its_length_and_a_lost_receiver_is_found_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        set_up_logs("gateway", to=f"tcp://127.0.0.1:{server.getsockname()[1]}")
        logging.getLogger("forebay.x").info("one")
        for _ in range(2):
            connection, _ = server.accept()
            connection.settimeout(20)
            size = b""
            while not size.endswith(b" "):
                size += connection.recv(1)
            said = b""
            while len(said) < int(size):
                said += connection.recv(int(size) - len(said))
            assert parsed(said.decode())[0]["event"] in ("one", "two")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            connection.close()  # a reset: the next line that is sent fails at once
            logging.getLogger("forebay.x").info("two")


def test_a_place_that_takes_nothing_stops_nobody_and_what_is_dropped_is_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts in the kernel and never reads
        place = parse_place(f"tcp://127.0.0.1:{server.getsockname()[1]}")
        handler = PlaceHandler(place, counted_frames=True, most=100)
        handler.setFormatter(SyslogLines("gateway"))
        logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
        log = logging.getLogger("forebay.x")
        slowest = 0.0
        for _ in range(5000):  # 40 MB: more than the kernel takes for a reader that does not read
            began = time.monotonic()
            log.info("x" * 7900)
            slowest = max(slowest, time.monotonic() - began)
        assert dropped_lines() > 0
        assert slowest < 4, "nothing waited for the five seconds that a send may take"
        handler.close()


def test_a_place_that_is_away_is_tried_again_until_it_is_there(tmp_path: Path) -> None:
    set_up_logs("gateway", to=f"unix:{tmp_path}/log")
    logging.getLogger("forebay.x").info("before it is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        log.settimeout(20)
        assert parsed(log.recv(9000).decode())[0]["event"] == "before it is there"


def test_what_was_dropped_is_said_once_lines_pass_again(tmp_path: Path) -> None:
    handler = PlaceHandler(parse_place(f"unix:{tmp_path}/log"), counted_frames=True, most=5)
    handler.setFormatter(SyslogLines("gateway"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for number in range(50):
        logging.getLogger("forebay.x").info("line %d", number)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        log.settimeout(20)
        passed = 0
        while (line := parsed(log.recv(9000).decode()))[0]["event"].startswith("line "):
            passed += 1
        assert line[1] == {"action": "logs_dropped", "lines": str(50 - passed)}
        assert passed in (5, 6), "what the queue held, and the one that was tried again and again"
        assert dropped_lines() == 50 - passed


def test_json_goes_elsewhere_as_lines() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        set_up_logs("gateway", form="json", to=f"tcp://127.0.0.1:{server.getsockname()[1]}")
        logging.getLogger("forebay.x").info("hello")
        connection, _ = server.accept()
        with connection, connection.makefile() as lines:
            connection.settimeout(20)
            assert json.loads(lines.readline())["event"] == "hello"


@pytest.mark.parametrize(
    "place", ["syslog", "udp://host", "tcp://:601", "udp://host:99999", "unix:log", "http://host:80", "tcp://h:1/x"]
)
def test_a_wrong_place_and_a_wrong_format_are_said_together(place: str) -> None:
    with pytest.raises(BadSettings) as refused:
        read_log_settings({}, {"FOREBAY_LOG_TO": place, "FOREBAY_LOG_FORMAT": "xml"})
    assert len(refused.value.problems) == 2


def test_flags_win_over_the_environment() -> None:
    environ = {"FOREBAY_LOG_FORMAT": "json", "FOREBAY_LOG_TO": "udp://a:514"}
    assert read_log_settings({"FOREBAY_LOG_FORMAT": "text", "FOREBAY_LOG_TO": "stderr"}, environ) == ("text", None)
    form, place = read_log_settings({}, environ)
    assert form == "json"
    assert place is not None
    assert place.port == 514


def test_a_service_that_runs_logs_to_the_place_that_is_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        log.settimeout(60)
        settings = ("--set", "gpu-agent.nats_url=memory:", "--set", "gpu-agent.ops_listen=127.0.0.1:0")
        with subprocess.Popen(
            [sys.executable, "-m", "forebay", "run", "gpu-agent", *settings, "--log-to", f"unix:{tmp_path}/log"],
            stderr=subprocess.PIPE,
        ) as process:
            events = []
            while "service ready" not in events:
                events.append(parsed(log.recv(9000).decode())[0]["event"])
            process.terminate()
            _, said = process.communicate(timeout=60)
        while "draining" not in events:  # what was logged last has gone before the process ended
            events.append(parsed(log.recv(9000).decode())[0]["event"])
    assert process.returncode == 0
    assert said == b""


def test_a_place_that_is_none_starts_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "forebay", "run", "gateway", "--log-to", "nowhere"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "write stderr, udp://host:514, tcp://host:601 or unix:/dev/log" in done.stderr
