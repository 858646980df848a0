"""The ops port of a service."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time

import pytest

from forebay import ops as ops_module
from forebay.errors import CannotStart
from forebay.ops import Ops, serve_ops


def get(address: str, path: str) -> tuple[int, str, bytes]:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.headers["content-type"], answer.read()
    finally:
        connection.close()


def test_a_service_is_ready_when_nothing_keeps_it_from_it() -> None:
    ops = Ops("gateway")
    with serve_ops(ops, "127.0.0.1:0") as address:
        ops.not_ready("principals", "no keys yet")
        status, content_type, body = get(address, "/readyz")
        assert (status, content_type) == (503, "application/json")
        assert json.loads(body) == {
            "service": "gateway",
            "ready": False,
            "waiting_for": {"start": "still starting", "principals": "no keys yet"},
        }
        ops.ready("start")
        ops.ready("principals")
        ops.ready("never mentioned")
        status, _, body = get(address, "/readyz?verbose")
        assert (status, json.loads(body)["ready"]) == (200, True)


def test_what_a_probe_excludes_does_not_keep_a_service_from_being_ready() -> None:
    ops = Ops("scheduler")
    ops.ready("start")
    ops.not_ready("lead", "another scheduler leads; this one stands by")
    with serve_ops(ops, "127.0.0.1:0") as address:
        assert get(address, "/readyz")[0] == 503
        assert get(address, "/readyz?exclude=lead")[0] == 200
        ops.not_ready("bus", "NATS has not answered yet")
        status, _, body = get(address, "/readyz?exclude=lead")
        assert (status, json.loads(body)["waiting_for"]) == (503, {"bus": "NATS has not answered yet"})
        assert get(address, "/readyz?exclude=lead&exclude=bus")[0] == 200
        assert get(address, "/healthz?exclude=lead")[0] == 200


def test_a_loop_that_stands_still_is_unhealthy_and_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops_module, "STALLED_AFTER_S", 0.05)
    ops = Ops("gateway")
    assert ops.answer("/healthz")[0] == 200
    time.sleep(0.1)
    status, _, body = ops.answer("/livez")
    assert (status, json.loads(body)["alive"]) == (503, False)
    ops.beat()
    assert ops.answer("/healthz")[0] == 200


def test_metrics_are_in_the_prometheus_text_format() -> None:
    ops = Ops("gateway")
    ops.metrics.counter("forebay_x", "About x.").child().value = 2
    with serve_ops(ops, "127.0.0.1:0") as address:
        status, content_type, body = get(address, "/metrics")
    assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"# HELP forebay_x_total About x." in body
    assert b"forebay_x_total 2.0" in body


def test_what_is_not_here_is_404_and_says_what_is() -> None:
    status, _, body = Ops("gateway").answer("/admin")
    assert status == 404
    assert b"/readyz" in body


def test_a_port_in_use_is_one_clear_sentence() -> None:
    with (
        serve_ops(Ops("admin"), "127.0.0.1:0") as address,
        pytest.raises(CannotStart) as refused,
        serve_ops(Ops("gateway"), address),
    ):
        raise AssertionError("two listen on one port")
    assert refused.value.message.startswith(f"The ops port {address} of gateway cannot be opened (")


def test_the_port_is_free_again_after_leaving() -> None:
    with serve_ops(Ops("admin"), "127.0.0.1:0") as address:
        pass
    with serve_ops(Ops("admin"), address) as again:
        assert again == address


def test_it_listens_on_ipv6_too() -> None:
    with serve_ops(Ops("admin"), "[::1]:0") as address:
        assert address.startswith("[::1]:")
        assert get(address, "/healthz")[0] == 200


def test_opening_the_port_asks_no_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object) -> str:
        raise AssertionError("a host without a DNS waits here")

    monkeypatch.setattr(socket, "getfqdn", slow)
    monkeypatch.setattr(socket, "gethostbyaddr", slow)
    with serve_ops(Ops("admin"), "127.0.0.1:0") as address:
        assert get(address, "/healthz")[0] == 200


def test_a_prober_that_says_nothing_holds_nobody_up() -> None:
    with serve_ops(Ops("admin"), "127.0.0.1:0") as address:
        host, _, port = address.rpartition(":")
        silent = [socket.create_connection((host, int(port))) for _ in range(20)]
        assert get(address, "/healthz")[0] == 200
        for one in silent:
            one.close()


def test_a_prober_that_leaves_early_is_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    ops = Ops("admin")
    ops.metrics.gauge("forebay_wide", "Wide.", ("n",), lambda: [((str(n),), n) for n in range(100_000)])
    with serve_ops(ops, "127.0.0.1:0") as address:
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port))) as hasty:
            hasty.sendall(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
            hasty.recv(1)
            hasty.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        until = time.monotonic() + 5
        while any(t.name.startswith("Thread") for t in threading.enumerate()) and time.monotonic() < until:
            time.sleep(0.02)
    assert capfd.readouterr().err == ""
