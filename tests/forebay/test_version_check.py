"""`forebay version`, and that nobody is asked for a newer one unasked."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any, NoReturn

import pytest
from click.testing import CliRunner

from forebay.errors import BadInput, Unavailable
from forebay.launch import cli
from forebay.version_check import is_newer, named_in

ROOT = Path(__file__).parents[2]


class _Page(BaseHTTPRequestHandler):
    asked: list[tuple[str, dict[str, str]]]

    def do_GET(self) -> None:
        self.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        if self.path == "/garbage":
            self.wfile.write(b"no answer of a page\r\n\r\n")
            return
        self.send_response(404 if self.path == "/nothing" else 200)
        self.end_headers()
        self.wfile.write(b'{"tag_name": "v99.1.0"}')

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def page() -> Iterator[str]:
    _Page.asked = []
    with HTTPServer(("127.0.0.1", 0), _Page) as server:
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


def test_nobody_is_asked_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("somebody was asked")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setenv("FOREBAY_VERSION_URL", "https://example.invalid/version")
    told = CliRunner().invoke(cli, ["version", "--json"])
    assert told.exit_code == 0
    assert json.loads(told.output)["newest"] is None
    monkeypatch.delenv("FOREBAY_VERSION_URL")
    assert isinstance(CliRunner().invoke(cli, ["version", "--check"]).exception, BadInput)


def test_only_that_command_can_ask() -> None:
    """No other part reads the setting or looks at a page of versions, and no address is built in."""
    parts = [path for place in ("forebay", "services") for path in (ROOT / place).rglob("*.py")]
    assert parts
    asking = {path.name for path in parts if "newest_at" in (text := path.read_text()) or "VERSION_URL" in text}
    assert asking == {"launch.py", "version_check.py"}
    text = (ROOT / "forebay/version_check.py").read_text()
    for known in ('"https://", "http://"', "https:// or http://", "from http.client import HTTPException"):
        text = text.replace(known, "")
    assert "http" not in text


def test_who_asks_is_told_and_says_nothing_of_itself(page: str) -> None:
    told = CliRunner().invoke(cli, ["version", "--check", "--url", f"{page}/x"])
    assert told.output.endswith("There is a newer one: 99.1.0\n")
    ((path, headers),) = _Page.asked
    assert path == "/x"
    assert headers.keys() <= {"accept", "accept-encoding", "user-agent", "host", "connection"}
    assert headers["user-agent"] == "forebay"
    assert isinstance(
        CliRunner().invoke(cli, ["version", "--check", "--url", f"{page}/nothing"]).exception, Unavailable
    )
    for address, kind in (
        ("file:///etc/hostname", BadInput),
        ("http://127.0.0.1:1/", Unavailable),
        (f"{page}/garbage", Unavailable),
        (f"{page}/a b", Unavailable),
    ):
        assert isinstance(CliRunner().invoke(cli, ["version", "--check", "--url", address]).exception, kind)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("1.2.3\n", "1.2.3"),
        ("v1.2", "1.2"),
        ('"1.2.3"', "1.2.3"),
        ('{"version": "1.2.3"}', "1.2.3"),
        ('{"info": {"version": "1.2.3rc1"}}', "1.2.3rc1"),
        ('{"tag_name": "v1.2.3"}', "1.2.3"),
        ('[{"tag_name": "v2.0"}, {"tag_name": "v1.0"}]', "2.0"),
    ],
)
def test_pages_name_versions_in_several_ways(content: str, named: str) -> None:
    assert named_in(content.encode(), "x") == named


@pytest.mark.parametrize(
    "content", ["", "<html>", "{", "[]", "{}", '{"version": 1}', "1.2.3" * 50, "\x1b[2J", "9.9\x1b[2J"]
)
def test_a_page_that_names_none_is_told(content: str) -> None:
    with pytest.raises(BadInput, match="names no version"):
        named_in(content.encode(), "x")


def test_a_page_that_is_nested_without_end_names_none() -> None:
    with pytest.raises(BadInput, match="names no version"):
        named_in(b"[" * 99_999, "x")


def test_versions_are_compared_by_their_numbers() -> None:
    order = ["0.9", "0.10.0rc1", "0.10", "0.10.1", "1.0.0.dev3", "1.0"]
    assert [is_newer(there, here) for here, there in pairwise(order)] == [True] * 5
    assert not any(is_newer(one, other) for one, other in (("1.0", "1.0.0"), ("1.0.0", "1.0"), ("0.9", "0.10")))
