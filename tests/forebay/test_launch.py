"""`forebay`: which services run, with which settings, and how they begin and end."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from forebay import launch
from forebay.errors import BadSettings, CannotStart, ForebayError, NotFound, Unavailable
from forebay.launch import Nouns, load_services, main, prepare, run_until_told
from forebay.service import Ground, Service


@dataclass(frozen=True, slots=True)
class Settings:
    ops_listen: str = "127.0.0.1:0"
    slots: int = 1


def make_service(
    name: str, events: list[str], needs: tuple[str, ...] = (), ends_with: Exception | None = None
) -> Service:
    @asynccontextmanager
    async def open_it(settings: Settings, ground: Ground) -> AsyncIterator[None]:
        events.append(f"{name} in")
        try:
            async with asyncio.TaskGroup() as tasks:
                if ends_with is not None:
                    tasks.create_task(fail(ends_with))
                yield
        finally:
            events.append(f"{name} out")

    async def fail(error: Exception) -> None:
        await asyncio.sleep(0.05)
        raise error

    return Service(name, Settings, open_it, needs)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The services and commands there are: name → what its entry point gives."""
    there: dict[str, Any] = {}

    class Point:
        def __init__(self, name: str) -> None:
            self.name = name

        def load(self) -> Any:
            loaded = there[self.name]
            if isinstance(loaded, Exception):
                raise loaded
            return loaded

    def entry_points(group: str, name: str | None = None) -> list[Point]:
        return [Point(n) for n in there if name in (None, n)]

    monkeypatch.setattr(launch, "entry_points", entry_points)
    return there


def names(services: Sequence[Service]) -> list[str]:
    return [service.name for service in services]


# --- which services ---------------------------------------------------------------------------------------------------


def test_services_come_after_those_they_need(known: dict[str, Any]) -> None:
    known["gateway"] = make_service("gateway", [], needs=("scheduler", "admin"))
    known["scheduler"] = make_service("scheduler", [], needs=("registry", "absent"))
    known["registry"] = make_service("registry", [])
    known["admin"] = make_service("admin", [])
    assert names(load_services(["all"])) == ["registry", "scheduler", "admin", "gateway"]
    assert names(load_services(["gateway", "scheduler", "gateway"])) == ["scheduler", "gateway"]


def test_a_service_that_there_is_not_is_named_with_those_there_are(known: dict[str, Any]) -> None:
    known["admin"], known["gateway"] = make_service("admin", []), make_service("gateway", [])
    with pytest.raises(CannotStart, match="There is no service gatway; there are admin, gateway and all"):
        load_services(["gatway", "admin"])


def test_a_service_whose_libraries_are_missing_says_what_to_install(known: dict[str, Any]) -> None:
    known["admin"] = ModuleNotFoundError("No module named 'asyncpg'", name="asyncpg")
    with pytest.raises(CannotStart, match=r"asyncpg is not installed here: pip install 'forebay\[admin\]'"):
        load_services(["admin"])


def test_every_service_of_the_distribution_can_be_loaded_and_says_its_own_name() -> None:
    for service in load_services(["gpu-agent"]):
        assert isinstance(service, Service)
        assert service.name == "gpu-agent"


# --- with which settings ----------------------------------------------------------------------------------------------


def test_the_problems_of_all_services_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    services = [make_service("gateway", []), make_service("admin", [])]
    monkeypatch.setenv("FOREBAY_ADMIN_SLOTS", "x")
    with pytest.raises(BadSettings) as refused:
        prepare(services, {"gateway": {"slotz": 1}}, {"scheduler": {"slots": "1"}})
    assert refused.value.problems == [
        "--set scheduler.…: scheduler is not among the services to run",
        "[gateway] slotz: there is no such setting (did you mean slots?)",
        "FOREBAY_ADMIN_SLOTS: 'x' is not a whole number",
    ]


def test_a_table_of_no_service_is_among_the_problems() -> None:
    with pytest.raises(BadSettings, match=r"\[gatway\]: there is no such service \(did you mean gateway\?\)"):
        prepare([make_service("admin", [])], {"gatway": {}, "gateway": {}}, {})


def test_flags_reach_their_service() -> None:
    services = [make_service("gateway", []), make_service("gpu-agent", [])]
    prepared = prepare(services, {}, {"gpu-agent": {"slots": "3"}})
    assert [(service.name, settings.slots) for service, settings in prepared] == [("gateway", 1), ("gpu-agent", 3)]


# --- how they begin and end -------------------------------------------------------------------------------------------


async def test_services_are_entered_in_order_and_left_in_reverse_when_told(caplog: pytest.LogCaptureFixture) -> None:
    events: list[str] = []
    caplog.set_level(logging.INFO, "forebay.launch")
    services = [make_service("admin", events), make_service("gateway", events)]
    running = asyncio.create_task(run_until_told(prepare(services, {}, {})))
    ready = await ready_records(caplog, 2)
    with urllib.request.urlopen(f"http://{ready[1]}/readyz", timeout=30) as response:
        assert json.loads(response.read())["ready"] is True
    assert events == ["admin in", "gateway in"]
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 30)
    assert events == ["admin in", "gateway in", "gateway out", "admin out"]


async def test_a_background_task_that_fails_takes_the_process_down_with_its_reason() -> None:
    events: list[str] = []
    services = [
        make_service("admin", events),
        make_service("gateway", events, ends_with=CannotStart("the disk is full")),
    ]
    with pytest.raises(BaseExceptionGroup) as ended:
        await asyncio.wait_for(run_until_told(prepare(services, {}, {})), 30)
    assert ended.group_contains(CannotStart, match="the disk is full")
    assert events == ["admin in", "gateway in", "gateway out", "admin out"]


async def ready_records(caplog: pytest.LogCaptureFixture, count: int) -> list[str]:
    """The ops addresses of the services that said they are ready."""
    async with asyncio.timeout(30):
        while True:
            told = [vars(r)["ops"] for r in caplog.records if vars(r).get("action") == "ready"]
            if len(told) == count:
                return told
            await asyncio.sleep(0.01)


# --- the command ------------------------------------------------------------------------------------------------------


def exit_status(monkeypatch: pytest.MonkeyPatch, raised: BaseException | int, *words: str) -> int | str | None:
    """What `forebay` exits with when its command raises this, or asks for this status."""

    @click.command()
    @click.argument("words", nargs=-1)
    @click.pass_context
    def command(context: click.Context, words: tuple[str, ...]) -> None:
        if isinstance(raised, int):
            context.exit(raised)
        raise raised

    monkeypatch.setattr(launch, "cli", command)
    monkeypatch.setattr(sys, "argv", ["forebay", *words])
    try:
        main()
    except SystemExit as exited:
        return exited.code
    return 0


class AwayForLong(Unavailable):
    """Away."""


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (BadSettings(["a", "b"]), 2),
        (NotFound("no such key"), 3),
        (Unavailable("away"), 6),
        (AwayForLong("away"), 6),
        (CannotStart("the port is in use"), 1),
        (ForebayError("odd"), 1),
        (ExceptionGroup("unhandled errors in a TaskGroup", [ExceptionGroup("inner", [NotFound("no such key")])]), 3),
        (click.UsageError("no such option"), 2),
        (click.Abort(), 130),
        (0, 0),
        (3, 3),
    ],
)
def test_scripts_can_tell_what_happened_by_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raised: BaseException | int, status: int
) -> None:
    assert exit_status(monkeypatch, raised) == status
    said = capsys.readouterr().err
    assert "Traceback" not in said
    if isinstance(raised, ForebayError):
        assert said == f"forebay: {raised.message}\n"
    if isinstance(raised, ExceptionGroup):
        assert said == "forebay: no such key\n"


def test_an_argument_that_is_no_text_is_wrong_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UnicodeEncodeError) as caught:
        "caf\udce9".encode()
    assert exit_status(monkeypatch, caught.value, "node", "where=caf\udce9") == 2
    assert capsys.readouterr().err == "forebay: 'caf\\udce9' is not text: its bytes are no UTF-8.\n"
    with pytest.raises(UnicodeEncodeError):
        exit_status(monkeypatch, caught.value)  # a mistake of ours


def test_output_that_nobody_reads_any_more_ends_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []
    monkeypatch.setattr(os, "dup2", lambda _, descriptor: closed.append(descriptor))
    assert exit_status(monkeypatch, BrokenPipeError()) == 141
    assert closed == [1]


def test_an_error_that_is_not_ours_keeps_its_traceback_even_among_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = ExceptionGroup("unhandled errors in a TaskGroup", [NotFound("no such key"), ArithmeticError("a mistake")])
    with pytest.raises(ExceptionGroup):
        exit_status(monkeypatch, mixed)


def test_nouns_are_found_by_entry_point_and_loaded_when_named(known: dict[str, Any]) -> None:
    loaded: list[str] = []

    @click.command()
    def key() -> None:
        loaded.append("key")

    known["key"] = key
    known["usage"] = ModuleNotFoundError("No module named 'grpc'", name="grpc")
    group = Nouns("forebay")
    runner = CliRunner()
    shown = runner.invoke(group, ["--help"])
    assert "key" in shown.output
    assert "(not installed here: grpc is missing)" in shown.output
    assert runner.invoke(group, ["key"]).exit_code == 0
    assert loaded == ["key"]
    missing = runner.invoke(group, ["usage", "--json", "--since", "1d"])
    assert missing.exit_code == 1
    assert "pip install 'forebay[all]'" in missing.output
    assert runner.invoke(group, ["kye"]).exit_code == 2


def test_a_set_without_its_parts_is_wrong_use(known: dict[str, Any], tmp_path: Path) -> None:
    known["admin"] = make_service("admin", [])
    for text in ("slots=3", "admin.slots", "=", ""):
        with pytest.raises(BadSettings, match=r"write SERVICE\.FIELD=VALUE"):
            launch.cli(["run", "admin", "--set", text], standalone_mode=False)


def test_python_m_forebay_is_the_command() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "forebay", "run", "nothing"], capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("forebay: There is no service nothing; there are ")


def test_loading_the_command_loads_no_services() -> None:
    code = "import sys, forebay.launch; print(sorted({'grpc', 'aiohttp', 'nats', 'asyncpg'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "[]\n"


def test_an_entry_point_that_is_no_command_is_our_mistake(known: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        launch._load_command(EntryPoint("path", "os:path", "forebay.commands"))
