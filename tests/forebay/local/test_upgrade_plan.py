"""What an upgrade does in which order, how it is taken back, and what the new version is told while it runs beside."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.config import read_settings
from forebay.launch import load_services
from forebay.local.data_directory import DataDirectory
from forebay.local.front import Front
from forebay.local.layout import Layout
from forebay.local.nats import Nats
from forebay.local.service_secrets import keep_service_secrets
from forebay.local.services import ServiceProcess
from forebay.local.upgrade.beside import beside, beside_name
from forebay.local.upgrade.plan import Act, Part, Step, plan, undo
from forebay.local.wiring import Wiring

PARTS = (
    Part("gpu-agent", "gpu-agent"),
    Part("gateway-1", "gateway"),
    Part("gateway-2", "gateway"),
    Part("scheduler", "scheduler"),
    Part("scheduler-2", "scheduler"),
    Part("registry", "registry"),
    Part("admin", "admin"),
)


def _short(steps: tuple[Step, ...]) -> str:
    marks = {Act.BESIDE: "+", Act.REPLACE: "", Act.END_BESIDE: "-", Act.PUT_BACK: "<"}
    return " ".join(f"{marks[step.act]}{step.part}" for step in steps)


def test_everything_new_is_tried_first_and_then_each_is_replaced_while_the_one_beside_serves() -> None:
    assert _short(plan(PARTS)) == (
        "+admin +registry +scheduler +gateway-1 +gateway-2 "
        "admin -admin "
        "-registry registry "
        "scheduler scheduler-2 -scheduler "
        "gateway-1 gateway-2 -gateway-1 -gateway-2 "
        "gpu-agent"
    )


def test_a_machine_that_runs_less_is_upgraded_in_the_same_order() -> None:
    assert _short(plan([Part("gateway-1", "gateway")])) == "+gateway-1 gateway-1 -gateway-1"
    assert plan([]) == ()


@pytest.mark.parametrize(
    ("done", "back"),
    [
        (0, ""),
        (3, "-scheduler -registry -admin"),
        (6, "<admin -gateway-2 -gateway-1 -scheduler -registry -admin"),
        (7, "<admin -gateway-2 -gateway-1 -scheduler -registry"),
        (13, "<gateway-1 <scheduler-2 <scheduler <registry <admin -gateway-2 -gateway-1"),
    ],
)
def test_from_wherever_it_fails_the_way_back_ends_where_it_began(done: int, back: str) -> None:
    steps = plan(PARTS)[:done]
    assert _short(undo(steps)) == back
    replaced = {step.part for step in steps if step.act is Act.REPLACE}
    assert {step.part for step in undo(steps) if step.act is Act.PUT_BACK} == replaced


@pytest.fixture
def wiring(tmp_path: Path) -> Wiring:
    data, secrets = DataDirectory(tmp_path), keep_service_secrets(tmp_path / "secrets")
    front = Front("127.0.0.1", "127.0.0.1", None, None)
    nats = Nats("nats://127.0.0.1:8100", None, tmp_path / "agents.conf", tmp_path / "secrets", None)  # type: ignore[arg-type]
    return Wiring(Layout(), data, secrets, front, nats, True, "laptop")


@pytest.mark.parametrize("service", ["admin", "registry", "scheduler", "gateway"])
def test_beside_the_old_one_every_address_and_folder_that_cannot_be_shared_is_its_own(
    wiring: Wiring, service: str
) -> None:
    part = "gateway-1" if service == "gateway" else service
    told = wiring.gateway(part) if service == "gateway" else getattr(wiring, service)()
    old = ServiceProcess(part, service, told, wiring.layout.ops(part), wiring.data.log(part), 10.0)
    new = beside(old, wiring)
    assert (new.part, new.log.name) == (beside_name(part), f"{part}-next.log")
    (loaded,) = load_services([service])
    was = read_settings(loaded.settings, service, file={}, environ=old.environ)
    now = read_settings(loaded.settings, service, file={}, environ=new.environ)
    own = {"ops_listen", "snapshot_dir", "journal_dir", "name"}
    own |= {"nats_seed_file"} if service == "gateway" else {"listen", "http_listen"}
    for field in own & set(vars(type(was)).get("__slots__", ())):
        assert getattr(now, field) != getattr(was, field), field
    shared = {"token_file", "pepper_file", "nats_url", "database_url_file", "content_dir", "callers_file"}
    if service == "gateway":
        shared.add("listen")
        assert (now.name, now.nats_user) == ("gateway-1-next", "gateway-1-next")
        assert now.journal_dir.parent == was.journal_dir, "its successor publishes what is left there"
        assert f"127.0.0.1:{wiring.layout.scheduler_beside}" in now.scheduler_address.split(",")
    if service == "scheduler":
        assert now.listen == f"127.0.0.1:{wiring.layout.scheduler_beside}", "where gateways look for it"
    for field in shared & set(vars(type(was)).get("__slots__", ())):
        assert getattr(now, field) == getattr(was, field), field
