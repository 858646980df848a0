"""An upgrade that fails half way: what is put back, how, and what is said when not even that can be had."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import CannotStart
from forebay.local.process import Command
from forebay.local.services import ServiceProcess
from forebay.local.upgrade import running as module
from forebay.local.upgrade.beside import STANDS_BY, beside_name
from forebay.local.upgrade.plan import Step
from forebay.local.upgrade.running import OldVersionLost, Running, Upgrade, UpgradeRolledBack

OLD, NEW = "/old/bin/python", "/new/bin/python"


@dataclass
class Part:
    """A supervised process that is none."""

    process: ServiceProcess
    command: Command
    fails: bool
    error: type[Exception]
    is_up: bool = False

    async def start(self) -> None:
        if self.fails:
            raise self.error(f"{self.process.part} of {self.command.argv[0]} is broken.")
        self.is_up = True

    async def stop(self) -> None:
        self.is_up = False


@dataclass
class Machine:
    """The agent is replaced last; `broken`: (part, python) of those that do not start."""

    broken: set[tuple[str, str]]
    error: type[Exception] = CannotStart
    parts: dict[str, Any] = field(default_factory=dict)
    told: list[tuple[str, str]] = field(default_factory=list)

    def supervise(self, process: ServiceProcess, *_: Any, python: str, **__: Any) -> Part:
        command = Command(name=process.part, argv=(python,), log=Path("/dev/null"))
        return Part(process, command, (process.part, python) in self.broken, self.error)

    def upgrade(self) -> Upgrade:
        processes = [
            ServiceProcess(name, name, {}, 1, Path("/dev/null"), 1.0) for name in ("scheduler", "registry", "gpu-agent")
        ]
        for process in processes:
            self.parts[process.part] = self.supervise(process, python=OLD)
            self.parts[process.part].is_up = True
        running = Running(None, tuple(processes), self.parts, None, None, lambda line: None)  # type: ignore[arg-type]
        return Upgrade(running, NEW, 5.0, self._tell)

    def _tell(self, step: Step, what: str) -> None:
        self.told.append((step.about, what))


@pytest.fixture(autouse=True)
def _nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def beside(process: ServiceProcess, _: Any) -> ServiceProcess:
        return ServiceProcess(beside_name(process.part), process.service, {}, 2, Path("/dev/null"), 1.0)

    async def is_ready(*_: Any) -> bool:
        return True

    monkeypatch.setattr(module, "beside", beside)
    monkeypatch.setattr(module, "is_ready", is_ready)


async def _run(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade = machine.upgrade()
    monkeypatch.setattr(module, "supervise", machine.supervise)
    await upgrade.run()


async def test_all_are_of_the_new_version_and_nothing_is_left_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(set())
    await _run(machine, monkeypatch)
    assert {name: (part.command.argv[0], part.is_up) for name, part in machine.parts.items()} == {
        name: (NEW, True) for name in ("scheduler", "registry", "gpu-agent")
    }


@pytest.mark.parametrize("error", [CannotStart, OSError, RuntimeError])
async def test_what_was_replaced_comes_back_and_a_scheduler_may_stand_by_meanwhile(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine({("gpu-agent", NEW)}, error)
    with pytest.raises(UpgradeRolledBack, match=r"gpu-agent of /new/bin/python is broken.\n.* goes on as before"):
        await _run(machine, monkeypatch)
    assert {name: (part.command.argv[0], part.is_up) for name, part in machine.parts.items()} == {
        name: (OLD, True) for name in ("scheduler", "registry", "gpu-agent")
    }
    scheduler = machine.parts["scheduler"].process
    assert (scheduler.page, scheduler.may_miss) == ("readyz", STANDS_BY)
    assert machine.parts["registry"].process.may_miss == frozenset()


@pytest.mark.parametrize("error", [CannotStart, OSError])
@pytest.mark.parametrize("gone", ["gpu-agent", "registry"])
async def test_an_old_one_that_does_not_come_back_is_named_and_the_others_do(
    gone: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine({("gpu-agent", NEW), (gone, OLD)}, error)
    with pytest.raises(OldVersionLost, match=r"gpu-agent of|registry of") as failed:
        await _run(machine, monkeypatch)
    assert f"The old {gone} did not come back either: " in failed.value.message
    assert f"{gone} of {OLD} is broken." in failed.value.message
    assert "start it again" in failed.value.message
    assert "goes on as before" not in failed.value.message
    assert {name for name, part in machine.parts.items() if not part.is_up} == {gone}
