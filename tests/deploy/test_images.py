"""The image and the compose file, for real: built, up, asked, broken and stopped.

All of it, every profile, but for Grafana, which is packaged nowhere. The servers of others are stand-ins (`containers`): of
the collector's configuration no more is tried than where traces go to. One image holds all services, with the scheduler's
core interpreted: what differs between images of single services is which packages are left out."""

from __future__ import annotations

import json
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.deploy import containers
from tests.deploy.compose_file import read_compose
from tests.deploy.containers import Stack, chat, podman, wait_until
from tests.deploy.test_observe_files import alerts

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1800)]
_WHY_NOT = containers.missing()
if _WHY_NOT:
    pytestmark.append(pytest.mark.skip(reason=_WHY_NOT))

SERVICES = read_compose()["services"]
RUNNING = tuple(name for name in SERVICES if name not in ("volumes", "grafana"))
_SLOTS = 8
_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
_SCRAPED = {"gateway-1": 8095, "scheduler-1": 8096, "scheduler-2": 8096, "registry": 8097, "admin": 8098}
_MOST_BYTES = 420_000_000


@pytest.fixture(scope="module")
def stack(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with containers.deployed(image, tmp_path_factory.mktemp("deploy"), services=RUNNING) as stack:
        yield stack


@pytest.fixture(scope="module")
def key(stack: Stack) -> str:
    return stack.key


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
    assert set(told["Uid"].split()) == {SERVICES[service]["user"].partition(":")[0]}
    assert int(told["CapEff"], 16) == int(told["CapPrm"], 16) == int(told["CapBnd"], 16) == 0
    assert told["NoNewPrivs"] == "1"
    refused = stack.run_inside(service, "sh", "-c", "touch /usr/local/bin/x 2>&1 || true")
    assert "Read-only file system" in refused


def test_the_stack_answers_and_its_rows_are_in_the_ledger(stack: Stack, key: str) -> None:
    status, text = stack.ask("/v1/chat/completions", key, chat())
    assert status == 200, text
    assert json.loads(text)["usage"]["completion_tokens"] > 0
    assert stack.ask("/v1/chat/completions", "fb-none-at-all", chat())[0] == 401
    wait_until(lambda: _rows(stack) >= 1, 60, lambda: stack.tell(["admin"]))
    pages = f"http://127.0.0.1:{stack.ports['PAGES_PORT']}/"
    with urllib.request.urlopen(pages, timeout=30) as answer:
        assert json.loads(answer.read())["service"] == "forebay admin"
    stack.run_inside(
        "admin", "sh", "-c", "test -s /opt/forebay/lib/python3*/site-packages/forebay_admin/web/static/built/app.js"
    )


def _rows(stack: Stack) -> int:
    return sum(int(row["requests"]) for row in json.loads(stack.operate("usage", "--json")))


def test_prometheus_reaches_every_service_and_has_the_rules(stack: Stack) -> None:
    wanted = {f"http://{host}:{port}/metrics" for host, port in _SCRAPED.items()}
    found: dict[str, str] = {}

    def are_up() -> bool:
        found.clear()
        found.update({one["scrapeUrl"]: one["health"] for one in _prometheus(stack, "targets")["activeTargets"]})
        return set(found.values()) == {"up"}

    wait_until(are_up, 90, lambda: repr(found))
    assert set(found) == wanted
    loaded = [rule for group in _prometheus(stack, "rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in loaded if rule["type"] == "alerting"} == set(alerts())
    assert not [rule["name"] for rule in loaded if rule["health"] == "err"]


def _prometheus(stack: Stack, page: str) -> Any:
    with urllib.request.urlopen(
        f"http://127.0.0.1:{stack.ports['PROMETHEUS_PORT']}/api/v1/{page}", timeout=30
    ) as answer:
        return json.loads(answer.read())["data"]


def test_spans_of_traced_requests_come_to_the_collector_from_all_that_had_a_part_in_them(
    stack: Stack, key: str
) -> None:
    def ask(number: int) -> tuple[int, str]:
        parent = f"00-{_TRACE}-{number:016x}-01"
        return stack.ask("/v1/chat/completions", key, chat(max_tokens=100), traceparent=parent)

    # More than there are slots: what has to wait is not decided by the gateway alone.
    with ThreadPoolExecutor(_SLOTS * 2) as threads:
        answers = list(threads.map(ask, range(1, _SLOTS * 2 + 1)))
    assert [status for status, _ in answers] == [200] * len(answers), answers
    wait_until(
        lambda: {"forebay-gateway", "forebay-scheduler"} <= _who_told(stack),
        60,
        lambda: repr(_who_told(stack)) + stack.tell(["otel-collector", "gateway-1", "scheduler-1", "scheduler-2"]),
    )


def _who_told(stack: Stack) -> set[str]:
    """The services that sent spans of this trace."""
    code = "import glob; print(*(open(file, 'rb').read().hex() for file in glob.glob('/tmp/received/*.body')))"
    bodies = stack.run_inside("otel-collector", "python3", "-c", code).split()
    told = set()
    for sent in (ExportTraceServiceRequest.FromString(bytes.fromhex(body)) for body in bodies):
        for resource in sent.resource_spans:
            names = {one.key: one.value.string_value for one in resource.resource.attributes}
            if any(span.trace_id.hex() == _TRACE for scope in resource.scope_spans for span in scope.spans):
                told.add(names["service.name"])
    return told


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
            status, text = stack.ask("/v1/chat/completions", key, chat())
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
        wait_until(lambda: stack.ask("/v1/chat/completions", key, chat())[0] == 200, 30)
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
    wait_until(lambda: stack.ask("/v1/chat/completions", key, chat())[0] == 200, 60, lambda: stack.tell(["gateway-1"]))
