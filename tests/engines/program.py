"""A server that a test starts as a program, and where what `make test-engines` installs lies."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "build" / "engines"


def python_of(environment: str) -> Path:
    """The interpreter of one of the environments beside ours. They are large, so only `make test-engines` makes them."""
    python = BUILT / environment / "bin" / "python"
    if not python.exists():
        pytest.fail(f"`make test-engines` installs what this needs; there is no {python.relative_to(ROOT)}")
    return python


@contextmanager
def running(
    command: Sequence[str | Path],
    health_url: str,
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    ready_s: float = 60,
) -> Iterator[None]:
    """Entered when it answers at `health_url` with 200; ended on leaving."""
    with log.open("wb") as written:
        server = subprocess.Popen(list(map(str, command)), stdout=written, stderr=written, env=env)
    try:
        _wait_until_healthy(health_url, server, log, ready_s)
        yield
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes], log: Path, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)  # not listening yet, or still loading (503)
    raise RuntimeError(f"{url} did not become ready; the end of its log:\n{log.read_text(errors='replace')[-3000:]}")


def text_at(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read(), "utf-8")


def told_at(url: str) -> Any:
    return json.loads(text_at(url))
