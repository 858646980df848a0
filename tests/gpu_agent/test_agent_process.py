"""The agent as it runs on a node: a process of its own, with nothing installed but what an agent needs, and a real NATS."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from forebay import nats_rights, subjects
from forebay.bus import Message
from forebay.local.nats import public_key
from forebay.nats_bus import open_nats_bus
from forebay.wire.v1 import telemetry_pb2 as wire
from tests.gpu_agent.admin_door import AdminDoor
from tests.gpu_agent.nvml_machine import A100, NvmlMachine, cut
from tests.gpu_agent.slim_installation import SlimInstallation, install
from tests.real_nats import RealNats

WITHIN_S = 20.0
INTERVAL_S = 0.2


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> SlimInstallation:
    return install(tmp_path_factory.mktemp("slim"))


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def running(slim: SlimInstallation, *words: str, log: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m forebay WORDS`, told to stop in the end."""
    environment = slim.environment(**settings)
    with log.open("ab") as written:
        process = subprocess.Popen([*slim.python, "-m", "forebay", *words], env=environment, stderr=written)
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(timeout=10) == 0, log.read_text()


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[AsyncIterator[Message]]:
    async with open_nats_bus(url, "listener") as bus, bus.subscribe(subjects.TELEMETRY_OF_ALL) as messages:
        yield messages


async def next_sample(messages: AsyncIterator[Message]) -> wire.TelemetrySample:
    message = await asyncio.wait_for(anext(messages), WITHIN_S)
    sample = wire.TelemetrySample.FromString(message.payload)
    assert message.subject == f"forebay.telemetry.{sample.node}"
    return sample


def get(address: str, path: str) -> tuple[int, bytes]:
    """Status and body; status 0 while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError:
        return 0, b""


def wait_for_status(address: str, path: str, wanted: int) -> bytes:
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        status, body = get(address, path)
        if status == wanted:
            return body
        time.sleep(0.05)
    raise AssertionError(f"{path} did not answer {wanted} within {WITHIN_S} s; last: {get(address, path)}")


def events(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_an_agent_needs_nothing_that_is_not_an_agents(slim: SlimInstallation) -> None:
    code = """
import sys
import forebay.bus, forebay.clock, forebay.config, forebay.launch, forebay.metrics, forebay.ops, forebay.service
import forebay.telemetry, forebay_gpu_agent.cli, forebay_gpu_agent.service, forebay_gpu_agent.status
import nats, nkeys, psutil, pynvml
foreign = {"aiohttp", "asyncpg", "cryptography", "grpc", "orjson", "rich", "sqlalchemy", "uvloop"}
print(sorted(foreign & set(sys.modules)))
for module in sorted(foreign):
    try:
        __import__(module)
    except ModuleNotFoundError:
        continue
    print("can be imported after all:", module)
"""
    ran = slim.run("-c", code)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "[]\n", "")


def test_the_help_of_a_slim_installation_shows_the_agents_commands(slim: SlimInstallation) -> None:
    ran = slim.forebay("agent", "--help")
    assert (ran.returncode, ran.stderr) == (0, "")
    for command in ("join", "run", "status"):
        assert command in ran.stdout
    assert slim.forebay("--help").returncode == 0


async def test_samples_arrive_on_the_beat_and_outlive_a_restart_of_nats(
    slim: SlimInstallation, nats: RealNats, tmp_path: Path
) -> None:
    log, ops = tmp_path / "agent.log", free_address()
    settings = {
        "FOREBAY_GPU_AGENT_NODE": "node-a",
        "FOREBAY_GPU_AGENT_INTERVAL_S": str(INTERVAL_S),
        "FOREBAY_GPU_AGENT_IDLE_INTERVAL_S": str(INTERVAL_S),
        "FOREBAY_GPU_AGENT_OPS_LISTEN": ops,
        "NATS_URL": nats.url,
        "LD_LIBRARY_PATH": str(tmp_path),
    }
    async with listening(nats.url) as messages:
        with running(slim, "run", "gpu-agent", log=log, **settings) as agent:
            first = await next_sample(messages)
            assert (first.node, first.agent_version != "") == ("node-a", True)
            assert abs(first.sampled_at_us / 1e6 - time.time()) < 30
            assert first.host.memory_total_bytes > 0
            assert first.gpu_state in (wire.GPU_STATE_NO_DRIVER, wire.GPU_STATE_OK)

            ten = [await next_sample(messages) for _ in range(10)]
            assert [s.sequence - first.sequence for s in ten] == list(range(1, 11))
            took_s = (ten[-1].sampled_at_us - ten[0].sampled_at_us) / 1e6
            assert 7.5 * INTERVAL_S <= took_s < 20
            assert all(s.host.HasField("cpu_percent") for s in ten)

            nats.kill()
            await asyncio.sleep(4 * INTERVAL_S)
            assert agent.poll() is None
            assert get(ops, "/readyz")[0] == 200  # ready is who was connected once: without NATS it samples on
            nats.start()
            after = await next_sample(messages)
            missed = after.sequence - ten[-1].sequence - 1
            assert missed >= 2  # the gap says how much was lost
            assert after.agent_started_us == first.agent_started_us
            assert (await next_sample(messages)).sequence == after.sequence + 1

            scraped = get(ops, "/metrics")[1].decode()
            assert 'forebay_agent_samples_total{outcome="dropped"}' in scraped
            status = slim.forebay("agent", "status", "--ops", ops, "--json")
            told = json.loads(status.stdout)
            assert (told["ready"], told["samples_dropped"] >= missed) == (True, True)
            assert told["last_sample_age_s"] < 5
    if first.gpu_state == wire.GPU_STATE_NO_DRIVER:
        said = [e for e in events(log) if e.get("action") == "gpu_state"]
        assert len(said) == 1  # once, and not every two seconds
        assert said[0]["event"] == first.gpu_message


def test_an_agent_without_nats_says_what_it_waits_for_and_becomes_ready(slim: SlimInstallation, tmp_path: Path) -> None:
    server, log, ops = RealNats(tmp_path), tmp_path / "agent.log", free_address()
    settings = {
        "NATS_URL": server.url,
        "FOREBAY_GPU_AGENT_OPS_LISTEN": ops,
        "FOREBAY_GPU_AGENT_NODE": "node-a",
        "FOREBAY_GPU_AGENT_IDLE_INTERVAL_S": "3600",
    }
    with running(slim, "run", "gpu-agent", log=log, **settings):
        waiting = json.loads(wait_for_status(ops, "/readyz", 503))
        while "start" in waiting["waiting_for"]:  # the ops port opens first
            time.sleep(0.05)
            waiting = json.loads(wait_for_status(ops, "/readyz", 503))
        assert list(waiting["waiting_for"]) == ["nats"]
        assert server.url in waiting["waiting_for"]["nats"]
        told = json.loads(slim.forebay("agent", "status", "--ops", ops, "--json").stdout)
        assert (told["ready"], told["samples_sent"]) == (False, 0)
        with server:
            wait_for_status(ops, "/readyz", 200)
            until = (
                time.monotonic() + WITHIN_S
            )  # what was lost meanwhile is told at once, however seldom an idle node speaks
            while b'_samples_total{outcome="sent"} 1.0' not in (scraped := get(ops, "/metrics")[1]):
                assert time.monotonic() < until, scraped.decode()
                time.sleep(0.05)


async def test_gpus_are_reported_and_a_lost_one_is_said_once(
    slim: SlimInstallation, nats: RealNats, nvml_library: Path, tmp_path: Path
) -> None:
    machine = NvmlMachine(nvml_library, tmp_path / "nvml")
    machine.has(A100, A100)
    log = tmp_path / "agent.log"
    settings = {
        "FOREBAY_GPU_AGENT_NODE": "node-g",
        "FOREBAY_GPU_AGENT_INTERVAL_S": str(INTERVAL_S),
        "FOREBAY_GPU_AGENT_IDLE_INTERVAL_S": str(INTERVAL_S),
        "FOREBAY_GPU_AGENT_OPS_LISTEN": free_address(),
        "NATS_URL": nats.url,
        **{name: machine.environment[name] for name in ("LD_LIBRARY_PATH", "NVML_STUB")},
    }
    async with listening(nats.url) as messages:
        with running(slim, "run", "gpu-agent", log=log, **settings):
            sample = await next_sample(messages)
            while sample.gpu_state != wire.GPU_STATE_OK:  # a busy machine may take longer than the first interval
                sample = await next_sample(messages)
            assert [gpu.memory_total_bytes for gpu in sample.gpus] == [80 << 30, 80 << 30]
            machine.set(gpu1_power="!15")
            while not sample.gpus[1].error:
                sample = await next_sample(messages)
            assert (sample.gpus[1].error, sample.gpus[1].uuid) == ("GPU_IS_LOST", "GPU-1")
            assert not sample.gpus[1].HasField("utilization_percent")
            assert sample.gpus[0].utilization_percent == 55
            for _ in range(3):
                await next_sample(messages)
            address = settings["FOREBAY_GPU_AGENT_OPS_LISTEN"]
            shown = slim.forebay("agent", "status", "--ops", address).stdout
            assert "GPU 1     GPU_IS_LOST" in shown
            scraped = get(address, "/metrics")[1].decode()
            assert 'forebay_gpu_utilization_percent{gpu="0",name="NVIDIA A100-SXM4-80GB",uuid="GPU-0"} 55.0' in scraped
            assert 'forebay_gpu_utilization_percent{gpu="1"' not in scraped
            for line in (
                'forebay_gpu_memory_temperature_celsius{gpu="0",name="NVIDIA A100-SXM4-80GB",uuid="GPU-0"} 70.0',
                'forebay_gpu_clock_reason{gpu="0",reason="sw_power_cap",uuid="GPU-0"} 1.0',
                'forebay_gpu_ecc_corrected{gpu="0",name="NVIDIA A100-SXM4-80GB",uuid="GPU-0"} 3.0',
                'forebay_agent_samples_told_total{reason="first"} 1.0',
            ):
                assert line in scraped
            assert "forebay_host_memory_total_bytes " in scraped
            assert 'forebay_host_disk_free_bytes{path="/"}' in scraped
            machine.set(gpu0_power="~")  # a call that hangs
            while sample.gpu_state != wire.GPU_STATE_FAILED:
                sample = await next_sample(messages)
            assert (sample.gpu_message, sample.host.memory_total_bytes > 0) == (
                "The NVIDIA driver does not answer.",
                True,
            )
            machine.set(gpu0_power=1000)
            while sample.gpu_state != wire.GPU_STATE_OK or sample.gpus[0].power_mw != 1000:
                sample = await next_sample(messages)
    assert len([e for e in events(log) if e.get("action") == "gpu_error"]) == 1


async def test_a_machine_that_has_joined_reports_as_its_node_and_as_no_other(
    slim: SlimInstallation, tmp_path: Path
) -> None:
    """The whole way: invitation, secret, rights on NATS, first sample; and the server lets in who enrolled, later than it
    began to knock."""
    configuration, registry_seed = tmp_path / "nats.conf", tmp_path / "registry.nk"
    agents = tmp_path / "agents.conf"
    agents.write_text(nats_rights.render_agents([]))
    configuration.write_text(nats_rights.render_accounts([("registry", public_key(registry_seed))], agents.name))
    with RealNats(tmp_path, "-c", str(configuration)) as server:
        admission = {"node": "gpu-1", "nats_url": server.url, "ca_pem": None}
        with AdminDoor({"token": (200, admission)}) as door:
            folder = str(tmp_path / "agent")
            words = ("--admin", door.url, "--token", "token", "--node", "gpu-1", "--dir", folder)
            joined = slim.forebay("agent", "join", *words)
            assert (joined.returncode, joined.stderr) == (0, "")
            again = slim.forebay("agent", "join", *words)
            assert (again.returncode, len(door.brought)) == (0, 1)
        ops, log = free_address(), tmp_path / "agent.log"
        with running(slim, "agent", "run", "--dir", folder, log=log, FOREBAY_GPU_AGENT_OPS_LISTEN=ops):
            wait_for_status(ops, "/healthz", 200)
            assert get(ops, "/readyz")[0] == 503
            public = str(door.brought[0]["public_nkey"])
            agents.write_text(nats_rights.render_agents([("gpu-1", public)]))
            assert server.process is not None
            server.process.send_signal(signal.SIGHUP)
            async with (
                open_nats_bus(server.url, "registry", seed_file=registry_seed) as bus,
                bus.subscribe(subjects.TELEMETRY_OF_ALL) as messages,
            ):
                assert (await next_sample(messages)).node == "gpu-1"
            wait_for_status(ops, "/readyz", 200)
            assert "violation" not in log.read_text().replace("Authorization Violation", "")
        pretender = {"FOREBAY_GPU_AGENT_NODE": "gpu-2", "FOREBAY_GPU_AGENT_NATS_USER": "gpu-1"}
        log = tmp_path / "pretender.log"
        with running(
            slim, "agent", "run", "--dir", folder, log=log, FOREBAY_GPU_AGENT_OPS_LISTEN=free_address(), **pretender
        ):
            until = time.monotonic() + WITHIN_S
            refused = 'publish to \\"forebay.telemetry.gpu-2\\"'
            while refused not in log.read_text() and time.monotonic() < until:
                await asyncio.sleep(0.05)
            assert refused in log.read_text()


def test_status_shows_this_machine_to_people_and_to_scripts(
    slim: SlimInstallation, nvml_library: Path, tmp_path: Path
) -> None:
    machine = NvmlMachine(nvml_library, tmp_path / "nvml")
    machine.has({**A100, "fan": "!3"}, {"name": "A card of few words"}, cut({"uuid": "MIG-a", "name": "1g.10gb"}))
    environment = {name: machine.environment[name] for name in ("LD_LIBRARY_PATH", "NVML_STUB")}
    shown = slim.forebay("agent", "status", "--dir", str(tmp_path / "none"), **environment)
    assert shown.returncode == 0
    assert "This machine has not joined" in shown.stderr
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    table = lines.index("GPU NAME LOAD BANDWIDTH MEMORY TEMP POWER CLOCK FAN PROCESSES UUID")
    assert lines[table - 2] == "GPUs 3 (driver 580.65.06, CUDA 12.8)"
    assert lines[table + 1] == (
        "0 NVIDIA A100-SXM4-80GB 55 % 21 % 30.0 GiB of 80.0 GiB 61 / 70 °C 250 W of 400 W 1410 of 1980 MHz - 3 GPU-0"
    )
    assert lines[table + 2] == "1 A card of few words - - - - - - - 0 GPU-1"
    assert lines[table + 5 : table + 8] == [
        "GPU 0 clocks held down by sw_power_cap, hw_thermal_slowdown",
        "memory errors: 3 corrected, 40 corrected in its life, 1 not corrected in its life",
        "3 pages retired, 3 rows remapped",
    ]
    assert "PCIe 4 ×8 of 4 ×16, 1.5 MB/s sent, 2.5 MB/s received" in lines
    assert "MIG 0: 1g.10gb, -, MIG-a" in lines
    assert any(line.startswith("disk ") for line in lines)

    told = json.loads(slim.forebay("agent", "status", "--json", "--dir", str(tmp_path), **environment).stdout)
    assert (told["gpus"]["state"], told["gpus"]["gpus"][1]["power_mw"]) == ("ok", None)
    assert told["host"]["cpu_percent"] is not None


def test_status_without_a_driver_is_one_plain_sentence(slim: SlimInstallation, tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"not a library")  # hides a real one
    shown = slim.forebay("agent", "status", "--dir", str(tmp_path / "none"), LD_LIBRARY_PATH=str(tmp_path))
    assert shown.returncode == 0
    assert "GPUs      There is no NVIDIA driver on this host" in shown.stdout


def test_status_of_an_agent_that_does_not_run_says_so_with_its_own_exit_status(slim: SlimInstallation) -> None:
    shown = slim.forebay("agent", "status", "--ops", free_address())
    assert shown.returncode == 6
    assert shown.stderr.startswith("forebay: No agent answers at 127.0.0.1:")
