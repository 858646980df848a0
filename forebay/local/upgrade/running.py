"""Puts the services of another environment in the places of those that run, one after the other, and back again when one
does not get ready. In which order is `upgrade_plan`'s part."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from forebay.errors import CannotStart, ForebayError
from forebay.local.layout import LOOPBACK
from forebay.local.services import ServiceProcess, is_ready, supervise
from forebay.local.supervised import Say, Supervised
from forebay.local.upgrade.beside import STANDS_BY, beside, beside_name
from forebay.local.upgrade.plan import Act, Part, Step, plan, undo
from forebay.local.wiring import Wiring

Tell = Callable[[Step, str], None]
"""A step, and `began`, `done` or `failed`."""

_LEADS_WITHIN_S = 15.0
_LOOK_S = 0.05


class UpgradeRolledBack(ForebayError):
    """The new version did not get ready; the old one goes on."""


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
        """Raises UpgradeRolledBack when the old version runs as before, with the reason; CannotStart when not even that
        could be had. Cancelled, it leaves nothing beside."""
        done: list[Step] = []
        try:
            for step in self._running.steps():
                self._tell(step, "began")
                try:
                    await self._do(step)
                except CannotStart as error:
                    self._tell(step, "failed")
                    await self._take_back(done)
                    raise UpgradeRolledBack(
                        f"{error.message}\nThe new version was ended, and the old one goes on as before."
                    ) from error
                self._tell(step, "done")
                done.append(step)
        finally:
            for name in list(self._beside):
                await self._end_beside(name)

    async def _take_back(self, done: Sequence[Step]) -> None:
        for step in undo(done):
            self._tell(step, "began")
            await self._do(step)
            self._tell(step, "done")

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
        started = self._supervise(process)
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
        process, parts = self._processes[name], self._running.parts
        if process.service == "scheduler":
            process = replace(process, page="readyz", may_miss=STANDS_BY)
        old = parts[name]
        await old.stop()
        new = parts[name] = self._supervise(process)
        try:
            await new.start()
        except CannotStart:
            parts[name] = old
            await old.start()
            raise
        self._old[name] = old

    async def _put_back(self, name: str) -> None:
        parts = self._running.parts
        await parts[name].stop()
        old = parts[name] = self._old.pop(name)
        with suppress(
            CannotStart
        ):  # one that stands by may never say that it is ready; it is looked after all the same
            await old.start()

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

    def _supervise(self, process: ServiceProcess) -> Supervised:
        running = self._running
        return supervise(
            process,
            running.config,
            running.session,
            running.say,
            python=self._python,
            ready_within_s=self._within_s,
        )
