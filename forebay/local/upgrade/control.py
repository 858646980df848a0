"""How `forebay upgrade` talks to the `forebay up` that runs: a socket in the data directory, which only its owner can reach,
and a line of JSON for each question and each piece of news."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, replace
from typing import Any

from forebay.errors import BadInput, ForebayError, Unavailable
from forebay.local.data_directory import DataDirectory
from forebay.local.started import read_started, write_started
from forebay.local.upgrade.plan import Step
from forebay.local.upgrade.running import Running, Upgrade, UpgradeRolledBack

log = logging.getLogger(__name__)

_SOCKET = "control.sock"


@asynccontextmanager
async def serve_control(data: DataDirectory, running: Running) -> AsyncIterator[None]:
    """Upgrades when asked, one at a time. One that has begun goes on to its end when whoever asked goes away."""
    at_work = asyncio.Lock()
    upgrades: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def tell(**news: Any) -> None:
            with suppress(OSError, RuntimeError):
                writer.write(json.dumps(news).encode() + b"\n")

        try:
            question = json.loads(await reader.readline())
            if question["ask"] == "plan":
                tell(steps=[asdict(step) for step in running.steps()])
            elif at_work.locked():
                tell(refused="An upgrade is under way already.")
            else:
                task = asyncio.create_task(_upgrade(data, running, question, at_work, tell), name="upgrade")
                upgrades.add(task)
                task.add_done_callback(upgrades.discard)
                await asyncio.wait([task])
        except (ValueError, KeyError, TypeError, OSError):
            tell(refused="That was not understood.")
        finally:
            with suppress(OSError):
                writer.close()

    (data.root / "run").mkdir(mode=0o700, exist_ok=True)
    socket_file = data.root / "run" / _SOCKET
    socket_file.unlink(missing_ok=True)
    with _reachable(data) as path:
        server = await asyncio.start_unix_server(answer, path)
        os.chmod(path, 0o600)
        try:
            yield
        finally:
            server.close()
            for task in upgrades:
                task.cancel()
            if upgrades:
                await asyncio.wait(upgrades)
            socket_file.unlink(missing_ok=True)


async def _upgrade(data: DataDirectory, running: Running, question: Any, at_work: asyncio.Lock, tell: Any) -> None:
    def note(step: Step, what: str) -> None:
        tell(step=asdict(step), state=what)
        if what != "done":
            running.say(f"Upgrade: {step.about}" + (" failed" if what == "failed" else ""))

    async with at_work:
        try:
            await Upgrade(running, question["python"], float(question["ready_within_s"]), note).run()
        except UpgradeRolledBack as error:
            tell(result="rolled_back", why=error.message)
        except ForebayError as error:
            tell(result="failed", why=error.message)
        except Exception as error:
            log.error("an upgrade ended in an error", extra={"action": "upgrade"}, exc_info=error)
            tell(result="failed", why=f"{type(error).__name__}: {error}")
        else:
            running.say(f"Upgrade: the services are of version {question['version']} now.")
            tell(result="upgraded", why=_write_down(data, question))


def _write_down(data: DataDirectory, question: Any) -> str:
    """Of which version the services are now, for the commands that come; what kept it from that, or nothing."""
    try:
        started = read_started(data)
        if started is not None:
            told = {"services_python": question["python"], "services_version": question["version"]}
            write_started(data, replace(started, **told))
    except (OSError, ForebayError) as error:
        return f"It could not be written down which version runs now ({error})."
    return ""


async def ask_control(data: DataDirectory, **question: Any) -> AsyncIterator[dict[str, Any]]:
    """What it says, piece by piece. Raises Unavailable when nobody listens, BadInput when it refuses."""
    with _reachable(data) as path:
        try:
            reader, writer = await asyncio.open_unix_connection(path)
        except OSError as error:
            raise Unavailable(
                f"The `forebay up` on {data.root} takes no questions ({error.strerror}): it is of a version without "
                "upgrades, or another user's. Stop it and start the new version instead."
            ) from error
    try:
        writer.write(json.dumps(question).encode() + b"\n")
        while line := await reader.readline():
            news: dict[str, Any] = json.loads(line)
            if refused := news.get("refused"):
                raise BadInput(refused)
            yield news
    finally:
        writer.close()


@contextmanager
def _reachable(data: DataDirectory) -> Iterator[str]:
    """A path that is short enough for a socket, however long that of the data directory is."""
    folder = os.open(data.root / "run", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{_SOCKET}"
    finally:
        os.close(folder)
