"""The one address of admin that an agent ever speaks to, `POST /join/TOKEN`, on a thread."""

from __future__ import annotations

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType


class AdminDoor:
    """Lets in whoever brings a token of `answers`, as often as it comes; notes what each brought."""

    def __init__(self, answers: dict[str, tuple[int, object]], *, tls: tuple[Path, Path] | None = None) -> None:
        """`answers`: token → (status, JSON body). `tls`: files of certificate and key."""
        self.brought: list[dict[str, object]] = []
        door = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                token = self.path.removeprefix("/join/")
                body = self.rfile.read(int(self.headers["content-length"]))
                door.brought.append({"token": token, **json.loads(body)})
                status, answer = answers.get(token, (404, {"error": "There is no such invitation."}))
                said = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, format: str, *args: object) -> None:
                """Not on the screen of the tests."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """A client that turns away at the sight of our certificate is part of the game."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._scheme = "http"
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self._scheme = "https"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def __enter__(self) -> AdminDoor:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
