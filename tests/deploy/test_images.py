"""The image and the compose file, for real: built, up, asked, broken and stopped.

PostgreSQL and NATS are stand-ins for the official images (`containers`). One image holds all services here, with the
scheduler's core interpreted: what differs between images of single services is which packages are left out."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.deploy import containers
from tests.deploy.compose_file import ROOT, read_compose
from tests.deploy.containers import Stack, podman, wait_until

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]
_WHY_NOT = containers.missing()
if _WHY_NOT:
    pytestmark.append(pytest.mark.skip(reason=_WHY_NOT))

RUNNING = tuple(
    name for name, service in read_compose()["services"].items() if "profiles" not in service and name != "volumes"
)
ENGINE = "forebay-test_engine"
MODEL = "fake-model"
_MOST_BYTES = 420_000_000


@pytest.fixture(scope="module")
def image() -> str:
    """FOREBAY_TEST_IMAGE names one that was built before, for whoever changes the tests and not the image."""
    if given := os.environ.get("FOREBAY_TEST_IMAGE"):
        return given
    containers.ensure_base()
    return containers.build_image("all", compile=False)


@pytest.fixture(scope="module")
def stack(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Up and healthy, with an engine that the fleet knows, from nothing but the files of deploy/compose."""
    containers.ensure_standins()
    for service in containers.SERVICES:
        podman("tag", image, f"{containers.OURS}/{service}:{containers.VERSION}")
    folder = tmp_path_factory.mktemp("deploy") / "compose"
    shutil.copytree(ROOT / "deploy" / "compose", folder, ignore=shutil.ignore_patterns("secrets", ".env"))
    ports = {name: _free_port() for name in ("GATEWAY_PORT", "PAGES_PORT", "CALLS_PORT")}
    settings = {
        **ports,
        "FOREBAY_IMAGES": containers.OURS,
        "FOREBAY_VERSION": containers.VERSION,
        "NATS_IMAGE": containers.NATS,
        "POSTGRES_IMAGE": containers.POSTGRES,
    }
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    subprocess.run(
        (str(folder / "make-secrets"),),
        env={**containers.environment(), "ENGINE": "podman"},
        check=True,
        capture_output=True,
        timeout=120,
    )
    stack = Stack(folder, ports)
    stack.compose("down", "-v")  # of a run that was ended
    try:
        stack.compose("up", "-d")
        stack.wait_healthy(RUNNING)
        _start_engine(image)
        key = stack.run_inside("admin", "cat", "/var/lib/forebay/admin.key")
        operate(stack, "backend", "add", "engine", "http://engine:8080", "--slots", "8")
        wait_until(lambda: MODEL in ask(stack, "/v1/models", key)[1], 60, lambda: stack.tell(["registry", "gateway-1"]))
        yield stack
    finally:
        podman("rm", "-f", "-i", "-t", "0", ENGINE, check=False)
        stack.compose("down", "-v", "-t", "5")


def _start_engine(image: str) -> None:
    podman("rm", "-f", "-i", "-t", "0", ENGINE, check=False)
    words = ("run", "-d", "--name", ENGINE, "--network", "forebay-test_engines", "--network-alias", "engine")
    mounted = ("--volume", f"{ROOT / 'tests'}:/code/tests:ro", "--env", "PYTHONPATH=/code", "--no-healthcheck")
    engine = (
        "-m",
        "tests.fakes.engine",
        "--host",
        "0.0.0.0",
        "--port",
        "8080",
        "--slots",
        "8",
        "--answer-tokens",
        "400",
    )
    podman(*words, *mounted, "--entrypoint", "/opt/forebay/bin/python", image, *engine)


def operate(stack: Stack, *words: str) -> str:
    """`forebay …`, as the README says."""
    command = 'FOREBAY_ADMIN=127.0.0.1:8092 FOREBAY_TOKEN=$(cat /var/lib/forebay/admin.key) forebay "$@"'
    return stack.run_inside("admin", "sh", "-c", command, "forebay", *words)


def ask(stack: Stack, path: str, key: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{stack.ports['GATEWAY_PORT']}{path}",
        data=json.dumps(body).encode() if body else None,
        headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, repr(error)


def chat(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20, **more}


@pytest.fixture(scope="module")
def key(stack: Stack) -> str:
    return stack.run_inside("admin", "cat", "/var/lib/forebay/admin.key")


def test_an_image_is_small_and_runs_as_nobody_in_particular(image: str) -> None:
    found = json.loads(podman("image", "inspect", image))[0]
    config = found["Config"]
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] == ["/usr/local/bin/forebay-start"]
    assert config["Labels"]["org.opencontainers.image.version"] == containers.VERSION
    assert (found.get("Healthcheck") or found["HealthCheck"])["Test"] == ["CMD", "/usr/local/bin/forebay-probe"]
    assert found["Size"] < _MOST_BYTES


def test_nothing_of_how_it_was_built_stays_in_an_image(image: str) -> None:
    looks = "ls /run/secrets /tools /src /wheels /node 2>/dev/null; command -v gcc npm node; ls /opt/forebay/bin"
    there = podman("run", "--rm", "--no-healthcheck", "--entrypoint", "sh", image, "-c", f"{looks}; true").split()
    assert "forebay" in there
    assert not {"pip", "pip3", "gcc", "npm", "node", "ca"} & set(there)
    told = podman("history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
    assert "forebay-probe" in told
    settings = (containers.SCRATCH / "pip.conf").read_text()
    for line in settings.splitlines()[1:]:
        assert line.partition(" = ")[2] not in told or "url" not in line


def test_the_python_in_it_is_new_and_its_own_modules_are_compiled_already(image: str) -> None:
    code = (
        "import importlib.util, os, sys, forebay.launch as ours; "
        "print(sys.version_info >= (3, 13), os.path.exists(importlib.util.cache_from_source(ours.__file__)))"
    )
    words = ("run", "--rm", "--no-healthcheck", "--read-only", "--entrypoint", "/opt/forebay/bin/python", image)
    assert podman(*words, "-c", code) == "True True"


def test_a_container_without_a_service_is_not_healthy(image: str) -> None:
    words = ("run", "--rm", "--no-healthcheck", "--entrypoint", "forebay-probe", image)
    done = subprocess.run(
        ("podman", *words), env=containers.environment(), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "No ops port is open" in done.stdout


@pytest.mark.parametrize("service", RUNNING)
def test_what_runs_has_no_rights_and_cannot_write_to_its_image(stack: Stack, service: str) -> None:
    status = Path(f"/proc/{stack.process(service)}/status").read_text()
    told = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(told["Uid"].split()) == {"10001"}
    assert int(told["CapEff"], 16) == int(told["CapPrm"], 16) == int(told["CapBnd"], 16) == 0
    assert told["NoNewPrivs"] == "1"
    refused = stack.run_inside(service, "sh", "-c", "touch /usr/local/bin/x 2>&1 || true")
    assert "Read-only file system" in refused


def test_the_stack_answers_and_its_rows_are_in_the_ledger(stack: Stack, key: str) -> None:
    status, text = ask(stack, "/v1/chat/completions", key, chat())
    assert status == 200, text
    assert json.loads(text)["usage"]["completion_tokens"] > 0
    assert ask(stack, "/v1/chat/completions", "fb-none-at-all", chat())[0] == 401
    wait_until(lambda: _rows(stack) >= 1, 60, lambda: stack.tell(["admin"]))
    pages = f"http://127.0.0.1:{stack.ports['PAGES_PORT']}/"
    with urllib.request.urlopen(pages, timeout=30) as answer:
        assert json.loads(answer.read())["service"] == "forebay admin"
    stack.run_inside(
        "admin", "sh", "-c", "test -s /opt/forebay/lib/python3*/site-packages/forebay_admin/web/static/built/app.js"
    )


def _rows(stack: Stack) -> int:
    return sum(int(row["requests"]) for row in json.loads(operate(stack, "usage", "--json")))


def test_what_must_not_be_lost_lies_on_three_nats_servers_and_one_may_die(stack: Stack, key: str) -> None:
    streams = _streams(stack)
    assert {name: replicas for name, (replicas, _) in streams.items()} == {
        "FOREBAY_USAGE": 3,
        "FOREBAY_AUDIT": 3,
        "KV_forebay-leader": 3,
        "KV_forebay-scheduler": 3,
    }
    before = _rows(stack)
    victim = streams["FOREBAY_USAGE"][1]
    podman("kill", stack.name(victim))
    try:
        for _ in range(5):
            status, text = ask(stack, "/v1/chat/completions", key, chat())
            assert status == 200, text
        wait_until(lambda: _rows(stack) >= before + 5, 120, lambda: stack.tell(["admin", "gateway-1"]))
    finally:
        podman("start", stack.name(victim))
    stack.wait_healthy([victim])


def _streams(stack: Stack) -> dict[str, tuple[int, str]]:
    """Stream → on how many servers it lies, and which leads."""
    code = "import urllib.request as r; print(r.urlopen('http://nats-1:8222/jsz?accounts=1&streams=1&config=1').read().decode())"
    told = json.loads(stack.run_inside("admin", "/opt/forebay/bin/python", "-c", code))
    details = [stream for account in told["account_details"] for stream in account["stream_detail"]]
    return {one["name"]: (one["config"]["num_replicas"], one["cluster"]["leader"]) for one in details}


def test_the_standby_takes_over_when_the_leader_is_killed(stack: Stack, key: str) -> None:
    leads = {name: _is_ready(stack, name) for name in ("scheduler-1", "scheduler-2")}
    (leader,) = [name for name, is_leader in leads.items() if is_leader]
    (standby,) = set(leads) - {leader}
    podman("kill", stack.name(leader))
    try:
        wait_until(lambda: _is_ready(stack, standby), 60, lambda: stack.tell([standby]))
        wait_until(lambda: ask(stack, "/v1/chat/completions", key, chat())[0] == 200, 30)
    finally:
        podman("start", stack.name(leader))
    stack.wait_healthy([leader])


def _is_ready(stack: Stack, service: str) -> bool:
    asked = ("podman", "exec", stack.name(service), "forebay-probe", "readyz")
    return subprocess.run(asked, env=containers.environment(), capture_output=True, check=False).returncode == 0


def test_a_gateway_that_is_stopped_lets_its_stream_end_and_comes_back(stack: Stack, key: str) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{stack.ports['GATEWAY_PORT']}/v1/chat/completions",
        data=json.dumps(chat(stream=True, max_tokens=400)).encode(),
        headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as stream:
        assert stream.readline().startswith(b"data: ")
        stopping = threading.Thread(target=podman, args=("stop", "-t", "100", stack.name("gateway-1")))
        stopping.start()
        wait_until(lambda: not _is_ready(stack, "gateway-1"), 30)
        rest = stream.read()
    stopping.join(timeout=120)
    assert rest.rstrip().endswith(b"data: [DONE]")
    assert rest.count(b"data: ") > 300
    assert podman("inspect", "-f", "{{.State.ExitCode}}", stack.name("gateway-1")) == "0"
    podman("start", stack.name("gateway-1"))
    stack.wait_healthy(["gateway-1"])
    wait_until(lambda: ask(stack, "/v1/chat/completions", key, chat())[0] == 200, 60, lambda: stack.tell(["gateway-1"]))


def _free_port() -> int:
    with suppress(OSError), socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
    raise AssertionError("there is no free port")
