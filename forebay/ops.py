"""The ops port of a service: /healthz, /readyz, /metrics.

It runs on a thread of its own. A probe that shares the event loop with a thousand streams answers late exactly when the
process is busy, and the orchestrator then kills a process that was merely working."""

from __future__ import annotations

import json
import logging
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from urllib.parse import parse_qs

from prometheus_client import PROCESS_COLLECTOR

from forebay.config import parse_address
from forebay.errors import CannotStart
from forebay.metrics import Metrics
from forebay.telemetry import dropped_lines

log = logging.getLogger(__name__)

STALLED_AFTER_S = 30.0
"""How long the event loop may be silent before /healthz calls the process stuck."""


class Ops:
    """What the ops port tells. The service's loop writes it, the ops thread reads it."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.metrics = Metrics()
        self._missing: dict[str, str] = {"start": "still starting"}
        self._beat_at = time.monotonic()

    def ready(self, what: str) -> None:
        """`what` no longer keeps the service from being ready."""
        self._missing.pop(what, None)

    def not_ready(self, what: str, why: str) -> None:
        """Until `ready(what)`, /readyz answers 503 and says `why`."""
        self._missing[what] = why

    def beat(self) -> None:
        """The event loop turns."""
        self._beat_at = time.monotonic()

    @property
    def missing(self) -> dict[str, str]:
        return dict(self._missing)

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body of a GET of `path`, with its query. `/readyz?exclude=lead` is the readiness of one
        that may stand by, which has its place although another leads."""
        path, _, query = path.partition("?")
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4; charset=utf-8", self.metrics.exposition()
        if path in ("/healthz", "/livez"):
            silent_s = time.monotonic() - self._beat_at
            alive = silent_s < STALLED_AFTER_S
            return _json(
                200 if alive else 503, {"service": self.service, "alive": alive, "loop_silent_s": round(silent_s, 2)}
            )
        if path == "/readyz":
            excluded = parse_qs(query).get("exclude", [])
            missing = {what: why for what, why in self.missing.items() if what not in excluded}
            return _json(
                503 if missing else 200, {"service": self.service, "ready": not missing, "waiting_for": missing}
            )
        return _json(404, {"error": "There are /healthz, /readyz and /metrics here."})


def _json(status: int, body: dict[str, object]) -> tuple[int, str, bytes]:
    return status, "application/json", json.dumps(body).encode() + b"\n"


@contextmanager
def serve_ops(ops: Ops, listen: str) -> Iterator[str]:
    """Answers on `listen` (HOST:PORT, port 0 for any) until left; gives the address. Raises CannotStart."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10  # an idle connection must not hold a thread for ever

        def do_GET(self) -> None:
            status, content_type, body = ops.answer(self.path)
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Probes are not news."""

    # Here and not in Ops: a gateway's worker has an Ops too, and its parent adds up what workers tell.
    ops.metrics.gauge(
        "forebay_ready",
        "1 while it is ready; one that stands by, since another leads, is.",
        (),
        lambda: [((), float(ops.missing.keys() <= {"lead"}))],
    )
    own_version = version("forebay")
    ops.metrics.gauge("forebay_build_info", "1; which version this is.", ("version",), lambda: [((own_version,), 1.0)])
    ops.metrics.counter_reading(
        "forebay_log_lines_dropped",
        "Log lines of this process that their place did not take.",
        (),
        lambda: [((), float(dropped_lines()))],
    )
    ops.metrics.add_source(PROCESS_COLLECTOR.collect)
    host, port = parse_address(listen)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def server_bind(self) -> None:
            # HTTPServer would ask the DNS for our own name here, and a host without one waits for the answer.
            socketserver.TCPServer.server_bind(self)
            self.server_name, self.server_port = host, self.server_address[1]

        def handle_error(self, request: object, client_address: object) -> None:
            """A prober that left before its answer is not news; anything else is."""
            error = sys.exc_info()[1]
            level = logging.DEBUG if isinstance(error, OSError) else logging.ERROR
            log.log(level, "ops request failed", extra={"action": "ops_failed"}, exc_info=error)

    try:
        server = Server((host, port), Handler)
    except OSError as error:
        raise CannotStart(
            f"The ops port {listen} of {ops.service} cannot be opened ({error.strerror}); is another Forebay running?"
        ) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="ops", daemon=True)
    thread.start()
    try:
        yield f"{f'[{host}]' if ':' in host else host}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=2)
