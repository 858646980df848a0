"""Puts the services of another environment in the places of those that run, one after the other, and back again when one
does not get ready. In which order is for `plan`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from forebay.errors import ForebayError
from forebay.local.layout import LOOPBACK
from forebay.local.services import READY_S, ServiceProcess, is_ready, supervise
from forebay.local.supervised import Say, Supervised
from forebay.local.upgrade.beside import STANDS_BY, beside, beside_name
from forebay.local.upgrade.plan import Act, Part, Step, plan, undo
from forebay.local.wiring import Wiring

log = logging.getLogger(__name__)

Tell = Callable[[Step, str], None]
"""A step, and `began`, `done` or `failed`."""

_LEADS_WITHIN_S = 15.0
_LOOK_S = 0.05


class UpgradeRolledBack(ForebayError):
    """The new version did not get ready; the old one goes on."""


class OldVersionLost(ForebayError):
    """A part of the old version did not come back either."""


@dataclass(frozen=True, slots=True)
class Running:
    """What `forebay up` runs, and with what."""

    wiring: Wiring
    processes: tuple[ServiceProcess, ...]
    parts: dict[str, Supervised]
    """By name, changed by what happens here."""
    config: Path | None
    session: aiohttp.ClientSession
    say: Say

    def steps(self) -> tuple[Step, ...]:
        return plan([Part(process.part, process.service) for process in self.processes])


class Upgrade:
    """Once. `python` is that of the environment with the new version."""

    def __init__(self, running: Running, python: str, ready_within_s: float, tell: Tell) -> None:
        self._running = running
        self._python = python
        self._within_s = ready_within_s
        self._tell = tell
        self._processes = {process.part: process for process in running.processes}
        self._beside: dict[str, Supervised] = {}
        self._old: dict[str, Supervised] = {}

    async def run(self) -> None:
        """Whatever fails is taken back. Raises UpgradeRolledBack when the old version runs as before, with the reason;
        OldVersionLost when not even that could be had. Cancelled, it leaves nothing beside."""
        done: list[Step] = []
        try:
            for step in self._running.steps():
                self._tell(step, "began")
                try:
                    await self._do(step)
                except Exception as error:  # of whatever kind: half an upgrade is nothing to leave behind
                    self._tell(step, "failed")
                    lost = [error.message] if isinstance(error, OldVersionLost) else []
                    lost += await self._take_back(done)
                    if lost:
                        raise OldVersionLost("\n".join((*lost, "Stop `forebay up`, and start it again."))) from error
                    raise UpgradeRolledBack(
                        f"{_why(error)}\nThe new version was ended, and the old one goes on as before."
                    ) from error
                self._tell(step, "done")
                done.append(step)
        finally:
            for name in list(self._beside):
                try:
                    await self._end_beside(name)
                except Exception as error:  # the others are ended all the same
                    _why(error)

    async def _take_back(self, done: Sequence[Step]) -> list[str]:
        """What did not come back, and why: the rest is put back all the same."""
        lost = []
        for step in undo(done):
            self._tell(step, "began")
            try:
                await self._do(step)
            except Exception as error:
                self._tell(step, "failed")
                lost.append(_why(error))
            else:
                self._tell(step, "done")
        return lost

    async def _do(self, step: Step) -> None:
        match step.act:
            case Act.BESIDE:
                await self._start_beside(step.part)
            case Act.END_BESIDE:
                await self._end_beside(step.part)
                if self._processes[step.part].service == "scheduler":
                    await self._wait_for_lead()
            case Act.REPLACE:
                await self._replace(step.part)
            case Act.PUT_BACK:
                await self._put_back(step.part)

    async def _start_beside(self, name: str) -> None:
        process = beside(self._processes[name], self._running.wiring)
        started = self._supervise(process, self._python, self._within_s)
        self._beside[name] = self._running.parts[beside_name(name)] = started
        try:
            await started.start()
        except BaseException:
            await self._end_beside(name)
            raise

    async def _end_beside(self, name: str) -> None:
        ending = self._beside.pop(name, None)
        if ending is not None:
            await ending.stop()
            self._running.parts.pop(beside_name(name), None)

    async def _replace(self, name: str) -> None:
        parts = self._running.parts
        old = parts[name]
        try:
            await old.stop()
            new = parts[name] = self._supervise(self._in_place(name), self._python, self._within_s)
            await new.start()
        except Exception as error:
            await self._start_old(name, old, f"{_why(error)}\n")
            raise
        self._old[name] = old

    async def _put_back(self, name: str) -> None:
        await self._running.parts[name].stop()
        await self._start_old(name, self._old.pop(name))

    async def _start_old(self, name: str, old: Supervised, before: str = "") -> None:
        """`before`: what had been told until then. Raises OldVersionLost."""
        try:
            again = self._running.parts[name] = self._supervise(self._in_place(name), old.command.argv[0])
            await again.start()
        except Exception as error:
            raise OldVersionLost(f"{before}The old {name} did not come back either: {_why(error)}") from error

    def _in_place(self, name: str) -> ServiceProcess:
        """A scheduler stands by where it comes back to while the one beside leads."""
        process = self._processes[name]
        return replace(process, page="readyz", may_miss=STANDS_BY) if process.service == "scheduler" else process

    async def _wait_for_lead(self) -> None:
        ports = [p.ops_port for p in self._processes.values() if p.service == "scheduler"]
        with suppress(TimeoutError):  # gateways wait for one as well
            async with asyncio.timeout(_LEADS_WITHIN_S):
                while True:
                    if await self._leads(ports):
                        return
                    await asyncio.sleep(_LOOK_S)

    async def _leads(self, ports: Sequence[int]) -> bool:
        urls = [f"http://{LOOPBACK}:{port}/readyz" for port in ports]
        return any(await asyncio.gather(*(is_ready(self._running.session, url) for url in urls)))

    def _supervise(self, process: ServiceProcess, python: str, ready_within_s: float = READY_S) -> Supervised:
        running = self._running
        return supervise(
            process, running.config, running.session, running.say, python=python, ready_within_s=ready_within_s
        )


def _why(error: Exception) -> str:
    """For people. One that is not of ours is a fault, and its traceback goes to the log."""
    if isinstance(error, ForebayError):
        return error.message
    log.error("an upgrade met an error", extra={"action": "upgrade"}, exc_info=error)
    return f"{type(error).__name__}: {error}"
