"""A child process that is ours: in a session of its own, its output in a log file, ended with us.

Starting it again when it dies is `supervised`'s job."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from forebay.errors import CannotStart
from forebay.local import become

Ready = Callable[[], Awaitable[bool]]
"""Whether a child does its work by now. Asked again and again until it is so."""

_POLL_S = 0.05
_LOG_LIMIT = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Account:
    """The user a child runs as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Command:
    """What to run and how to end it."""

    name: str
    """For people: "PostgreSQL", "gateway"."""
    argv: tuple[str, ...]
    log: Path
    """Its output and errors are appended here."""
    environ: Mapping[str, str] | None = None
    """The whole environment; None is ours."""
    account: Account | None = None
    """None is who we are. Another needs root."""
    cwd: Path = Path("/")
    """Entered before the account changes, so that it may lie where that account could not go. By default it holds no folder
    that somebody may want to remove."""
    stop_signal: signal.Signals = signal.SIGTERM
    """Asks it to end in good order; sent by us when we leave, and by the kernel should we vanish."""
    hurry_signal: signal.Signals = signal.SIGKILL
    grace_s: float = 10.0
    """How long it may take to end in good order."""
    ready_within_s: float = 30.0
    descriptors: tuple[int, ...] = ()
    """Which it inherits, under the same numbers."""


class Child:
    """A running process. Made by `start_child`."""

    def __init__(self, command: Command, process: asyncio.subprocess.Process) -> None:
        self.command = command
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    async def wait(self) -> int:
        """Its exit status, -N for signal N."""
        return await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Nothing happens when it has ended already."""
        if self.is_running:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self) -> None:
        """Asks it to end, then makes it, with all that it started itself."""
        self.send(self.command.stop_signal)
        try:
            async with asyncio.timeout(self.command.grace_s):
                await self._process.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self._process.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # its session is its own, so this reaches what it left behind

    async def wait_ready(self, ready: Ready) -> None:
        """Raises CannotStart, with the end of its log, when it dies or takes too long."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.command.ready_within_s
        while self.is_running and loop.time() < until:
            if await ready():
                return
            await asyncio.sleep(_POLL_S)
        how = "did not get ready in time" if self.is_running else f"ended at once ({told(await self.wait())})"
        raise CannotStart(
            f"{self.command.name} {how}. The end of its log {self.command.log}:\n{last_lines(self.command.log)}"
        )


async def start_child(command: Command) -> Child:
    """Starts it; whether it works is for `wait_ready`. Raises CannotStart when the log cannot be written."""
    who = command.account
    launch = (
        sys.executable,
        *("-I", "-S", become.__file__),
        *(str(os.getpid()), str(int(command.stop_signal)), str(who.uid) if who else "-", str(who.gid) if who else "-"),
    )
    try:
        with _open_log(command.log) as log:
            process = await asyncio.create_subprocess_exec(
                *launch,
                *command.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=None if command.environ is None else dict(command.environ),
                cwd=command.cwd,
                pass_fds=command.descriptors,
                start_new_session=True,  # a terminal's Ctrl-C is for `forebay up` alone, which ends the rest in order
            )
    except OSError as error:
        raise CannotStart(f"{command.name} cannot be started: {error.strerror} ({error.filename}).") from error
    return Child(command, process)


async def run_to_end(command: Command) -> int:
    """Runs something that ends by itself, such as initdb; its exit status."""
    child = await start_child(command)
    try:
        return await child.wait()
    finally:
        if child.is_running:
            await child.stop()


def last_lines(log: Path, count: int = 12) -> str:
    """The end of a log, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError as error:
        return f"  (unreadable: {error.strerror})"
    return "\n".join(f"  {line}" for line in lines[-count:]) or "  (empty)"


def told(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _open_log(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > _LOG_LIMIT:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")
