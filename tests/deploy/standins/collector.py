#!/usr/bin/python3 -IS
"""As much of an OpenTelemetry collector as shows that wire, port and mounted file fit: it takes OTLP over HTTP where its
configuration says so, with the environment's values in it, and keeps what was sent in /tmp/received, a file for each body.
It reads no more of its configuration than that, and hands nothing on."""

import gzip
import itertools
import os
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

RECEIVED = Path("/tmp/received")
_VARIABLE = re.compile(r"\$\{env:(\w+)(?::-([^}]*))?\}")
_ENDPOINT = re.compile(r"\n\s+http:\n\s+endpoint: (\S+):(\d+)\n")


def place(config: str) -> tuple[str, int]:
    """Where the receiver for HTTP listens."""
    told = _ENDPOINT.search(_VARIABLE.sub(lambda match: os.environ.get(match[1]) or match[2] or "", config))
    if told is None:
        raise SystemExit("The configuration has no receiver for OTLP over HTTP.")
    return told[1], int(told[2])


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    numbers = itertools.count(1)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path != "/v1/traces" or self.headers["content-type"] != "application/x-protobuf":
            self.send_error(404)
            return
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        part = RECEIVED / f"{next(self.numbers)}.part"
        part.write_bytes(body)
        part.rename(part.with_suffix(".body"))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()


def main() -> None:
    (config,) = (word.removeprefix("--config=") for word in sys.argv[1:] if word.startswith("--config="))
    RECEIVED.mkdir()
    ThreadingHTTPServer(place(Path(config).read_text()), Receiver).serve_forever()


if __name__ == "__main__":
    main()
