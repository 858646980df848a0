"""A whole Forebay under test: the real `forebay up` as a child, with its own data directory and ports."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

READY_S = 150.0
_ANNOUNCED = "Forebay is ready."
_NO_HUB = {"HF_ENDPOINT": "http://127.0.0.1:9"}
"""The same model on every machine, whether it reaches a hub or not."""
STOP_S = 40.0


def free_base_port() -> int:
    """A base with enough free ports above it, below the range from which the kernel takes its own; each worker of a test
    run looks in a part of its own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
    for base in range(20_000 + 3_000 * worker, 23_000 + 3_000 * worker, 60):
        with _all_bound(range(base, base + 53)) as free:
            if free:
                return base
    raise AssertionError("not enough free ports in a row")


@contextmanager
def _all_bound(ports: Sequence[int]) -> Iterator[bool]:
    bound: list[socket.socket] = []
    try:
        for port in ports:
            one = socket.socket()
            bound.append(one)
            one.bind(("127.0.0.1", port))
        yield True
    except OSError:
        yield False
    finally:
        for one in bound:
            one.close()


@dataclass
class Installation:
    """One `forebay up`, running. Addresses and key are those of its connection.json."""

    data_dir: Path
    base_port: int
    process: subprocess.Popen[bytes]
    output_file: Path
    connection: dict[str, str] = field(default_factory=dict)
    prefix: Sequence[str] = ()
    """Put before each command: `ip netns exec …`."""

    @property
    def output(self) -> str:
        return self.output_file.read_text(errors="replace")

    @property
    def gateway(self) -> str:
        return self.connection["gateway"]

    @property
    def key(self) -> str:
        return self.connection["admin_key"]

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def gateway_url(self, number: int) -> str:
        return f"http://127.0.0.1:{self.base_port if number == 1 else self.base_port + 16 + 2 * number}"

    def ops_port(self, part: str) -> int:
        """Of a scheduler."""
        return self.base_port + {"scheduler": 6, "scheduler-2": 14}[part]

    def make_key(self, user: str) -> str:
        """Of a new user."""
        self.cli("user", "add", user)
        secret: str = self.cli("key", "create", "--user", user, "--name", "test")["secret"]
        names = json.loads((self.data_dir / "run" / "processes.json").read_text())
        for number in (1, 2):
            if f"gateway-{number}" in names:
                _wait_known(self.gateway_url(number), secret)
        return secret

    def pid(self, part: str) -> int:
        processes: dict[str, int] = json.loads((self.data_dir / "run" / "processes.json").read_text())
        return processes[part]

    def cli(self, *words: str, check: bool = True) -> Any:
        """Runs `forebay WORDS --json` against this installation; the parsed answer."""
        done = self.run_cli(*words, "--json")
        if check and done.returncode != 0:
            raise AssertionError(f"forebay {' '.join(words)} exited {done.returncode}: {done.stderr}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def run_cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "FOREBAY_ADMIN": self.connection["admin_grpc"],
            "FOREBAY_TOKEN": self.key,
        }
        return subprocess.run(
            [*self.prefix, sys.executable, "-m", "forebay", *words],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
        )

    def kill(self, part: str) -> int:
        """kill -9, and wait until the kernel has buried it; the pid that died."""
        pid = self.pid(part)
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and _is_running(pid):
            time.sleep(0.01)
        return pid

    async def wait_restarted(self, part: str, old_pid: int, within_s: float = 90) -> None:
        def is_new() -> bool:
            try:
                pid = self.pid(part)
            except (KeyError, ValueError, FileNotFoundError):
                return False
            return pid != old_pid and _is_running(pid)

        await eventually(is_new, within_s, f"{part} was not started again")

    def ledger_rows(self, limit: int = 10_000) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.cli("usage", "--rows", "--limit", str(limit))
        return rows

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def start_up(
    data_dir: Path,
    *arguments: str,
    base_port: int | None = None,
    environment: dict[str, str] | None = None,
    wait: bool = True,
    prefix: Sequence[str] = (),
    python: str = sys.executable,
) -> Installation:
    """Starts `forebay up` and waits until it has written connection.json and said that it is ready."""
    base_port = base_port or free_base_port()
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    output_file = data_dir.parent / f"{data_dir.name}.output"
    connection_file = data_dir / "connection.json"
    connection_file.unlink(missing_ok=True)
    command = [
        *prefix,
        python,
        "-m",
        "forebay",
        "up",
        "--data-dir",
        str(data_dir),
        "--base-port",
        str(base_port),
    ]
    with output_file.open("wb") as output:
        process = subprocess.Popen(
            [*command, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **_NO_HUB, **(environment or {})},
        )
    installation = Installation(data_dir, base_port, process, output_file, prefix=prefix)
    if wait:
        deadline = time.monotonic() + READY_S
        while not (connection_file.exists() and _ANNOUNCED in installation.output):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise AssertionError(f"`forebay up` did not come up (exit {process.poll()}):\n{installation.output}")
            time.sleep(0.05)
        installation.connection = json.loads(connection_file.read_text())
    return installation


async def eventually(holds: Callable[[], bool], within_s: float, otherwise: str, *, every_s: float = 0.02) -> float:
    """Waits until `holds()`; how many seconds that took. Fails with `otherwise`."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > within_s:
            raise AssertionError(f"{otherwise} within {within_s} s")
        await asyncio.sleep(every_s)
    return time.monotonic() - began


def ask(words: str, **more: Any) -> dict[str, Any]:
    """The body of a chat request with one user message; the model is the demo's unless given."""
    return {"model": "gemma-3-270m", "messages": [{"role": "user", "content": words}], **more}


def _wait_known(url: str, key: str) -> None:
    """Gateways hear of a key a moment after the command that made it has ended. One that is down is not waited for."""
    until = time.monotonic() + 15
    asked = urllib.request.Request(f"{url}/v1/models", headers={"authorization": f"Bearer {key}"})
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(asked, timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 401:
                return
        except (OSError, http.client.HTTPException):
            return
        else:
            return
        time.sleep(0.05)


@dataclass
class Streamed:
    """What came of one streamed request."""

    request_id: str
    status: int = 0
    arrivals: list[float] = field(default_factory=list)
    """Seconds since the request was sent, one for each event with content."""
    text: str = ""
    usage: dict[str, int] | None = None
    is_done: bool = False
    """`data: [DONE]` came."""
    error: dict[str, Any] | None = None
    """An in-band error event, or the body of a refusal."""
    broke: str = ""
    """How the connection ended, when it broke."""
    ended_s: float = 0.0


async def stream(
    client: aiohttp.ClientSession,
    url: str,
    key: str,
    body: dict[str, Any],
    request_id: str,
    first: asyncio.Event | None = None,
) -> Streamed:
    """One streamed chat completion, read as a careful client would. `first` is set at the first content."""
    result = Streamed(request_id)
    began = time.monotonic()
    headers = {"authorization": f"Bearer {key}", "x-request-id": request_id}
    try:
        async with client.post(f"{url}/v1/chat/completions", json={**body, "stream": True}, headers=headers) as answer:
            result.status = answer.status
            if answer.status != 200:
                result.error = (await answer.json())["error"]
                return result
            pending = b""
            async for chunk in answer.content.iter_any():
                *events, pending = (pending + chunk).split(b"\n\n")
                for event in events:
                    _take(result, event, time.monotonic() - began)
                    if first is not None and result.arrivals:
                        first.set()
    except (aiohttp.ClientError, ConnectionError) as error:
        result.broke = repr(error)
    finally:
        result.ended_s = time.monotonic() - began
    return result


def _take(result: Streamed, event: bytes, at: float) -> None:
    if not event.startswith(b"data: "):
        return  # a comment
    if event == b"data: [DONE]":
        result.is_done = True
        return
    told = json.loads(event[6:])
    if "error" in told:
        result.error = told["error"]
    if told.get("usage"):
        result.usage = told["usage"]
    for choice in told.get("choices", ()):
        content = choice.get("delta", {}).get("content")
        if content:
            result.arrivals.append(at)
            result.text += content
