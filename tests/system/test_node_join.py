"""A second machine joins: two network namespaces, one with Forebay listening on its address, one with a node."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.installation import Installation, start_up

HERE, THERE = "10.87.0.1", "10.87.0.2"


def _can_make_namespaces() -> bool:
    if os.getuid() != 0 or not shutil.which("ip"):
        return False
    name = f"fbprobe{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode != 0:
        return False
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return True


pytestmark = pytest.mark.skipif(not _can_make_namespaces(), reason="needs network namespaces (root and iproute2)")


@dataclass(frozen=True)
class Machines:
    """Two namespaces, joined by a cable."""

    here: str
    there: str

    def run(self, namespace: str, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ip", "netns", "exec", namespace, "bash", "-c", command],
            capture_output=True,
            text=True,
            timeout=180,
            env={**os.environ, **environment},
        )


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    pid = os.getpid()
    pair = Machines(f"fbhere{pid}", f"fbthere{pid}")
    cable = (f"fba{pid % 100000}", f"fbb{pid % 100000}")
    try:
        for namespace in (pair.here, pair.there):
            _ip("netns", "add", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("link", "add", cable[0], "type", "veth", "peer", "name", cable[1])
        for namespace, end, address in ((pair.here, cable[0], HERE), (pair.there, cable[1], THERE)):
            _ip("link", "set", end, "netns", namespace)
            _ip("-n", namespace, "address", "add", f"{address}/24", "dev", end)
            _ip("-n", namespace, "link", "set", end, "up")
        yield pair
    finally:
        for namespace in (pair.here, pair.there):
            pids = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True).stdout.split()
            for one in pids:
                os.kill(int(one), signal.SIGTERM)
            subprocess.run(["ip", "netns", "delete", namespace])


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture(scope="module")
def listening(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    data_dir = tmp_path_factory.mktemp("listening") / "data"
    running = start_up(
        data_dir, "--listen", HERE, "--no-engine", base_port=18090, prefix=("ip", "netns", "exec", machines.here)
    )
    yield running
    running.stop()


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an agent needs from a package index, which the other namespace cannot reach."""
    directory = tmp_path_factory.mktemp("wheels")
    freeze = subprocess.run([sys.executable, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    wanted = (
        "click",
        "protobuf",
        "prometheus",
        "nats-py",
        "nkeys",
        "pynacl",
        "cffi",
        "pycparser",
        "nvidia-ml",
        "psutil",
    )
    pins = [line for line in freeze.splitlines() if line.lower().replace("_", "-").startswith(wanted)]
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(directory), *pins]
    subprocess.run(command, check=True, timeout=170)
    return directory


def test_a_node_joins_with_one_pasted_command_and_its_samples_arrive(
    machines: Machines, listening: Installation, wheels: Path, tmp_path: Path
) -> None:
    invited = listening.cli("node", "enroll", "gpu-box")
    command = invited["command"]
    assert HERE in command
    environment = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "FOREBAY_AGENT_DIR": str(tmp_path / "agent")}
    joined = machines.run(machines.there, command, **environment)
    assert joined.returncode == 0, joined.stdout + joined.stderr

    deadline = time.monotonic() + 30
    sample = None
    while sample is None and time.monotonic() < deadline:
        node = next(node for node in listening.cli("node", "list") if node["name"] == "gpu-box")
        sample = node.get("last_sample")
        time.sleep(0.2)
    assert sample is not None, joined.stdout + joined.stderr
    assert sample["host"]["cpu_count"] == os.cpu_count()
    assert sample["gpu_state"] in ("ok", "no_driver", "no_gpu", "failed")
    assert sample["gpu_state"] == "ok" or sample["gpu_message"]

    # The seed was made on the node and is for its owner's eyes only.
    seeds = list((tmp_path / "agent").rglob("*.nk"))
    assert len(seeds) == 1
    assert seeds[0].stat().st_mode & 0o077 == 0

    again = machines.run(machines.there, command, **{**environment, "FOREBAY_AGENT_DIR": str(tmp_path / "second")})
    assert again.returncode != 0, "a one-time command worked twice"


def test_others_reach_the_gateway_over_https_only(machines: Machines, listening: Installation) -> None:
    assert listening.gateway.startswith(f"https://{HERE}:")
    ca = listening.data_dir / "ca.pem"
    url = f"{listening.gateway}/v1/models"
    key = f"authorization: Bearer {listening.key}"
    answered = machines.run(machines.there, f"curl -sS --cacert {ca} -H '{key}' {url}")
    assert answered.returncode == 0, answered.stderr
    assert '"object":"list"' in answered.stdout.replace(" ", "")
    distrusted = machines.run(machines.there, f"curl -sS -H '{key}' {url}")
    assert distrusted.returncode != 0
    plain = machines.run(machines.there, f"curl -sS --max-time 5 -H '{key}' {url.replace('https', 'http')}")
    assert plain.returncode != 0 or '"object"' not in plain.stdout


def test_internal_ports_stay_on_loopback(machines: Machines, listening: Installation) -> None:
    base = listening.base_port
    open_ports = {0, 1, 10}  # gateway, admin HTTP, NATS
    for offset in range(13):
        tried = machines.run(machines.there, f"timeout 2 bash -c '</dev/tcp/{HERE}/{base + offset}'")
        assert (tried.returncode == 0) == (offset in open_ports), f"port {base + offset}"


def test_the_certificate_is_reloaded_when_it_changes(machines: Machines, listening: Installation) -> None:
    tls = listening.data_dir / "secrets" / "tls"
    certificate, key = tls / "server.pem", tls / "server.key"
    show = f"openssl s_client -connect {HERE}:18090 </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256"
    before = machines.run(machines.there, show).stdout
    assert "Fingerprint" in before
    new_key, new_certificate = tls / "new.key", tls / "new.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=replaced"
    subprocess.run([*make.split(), "-keyout", new_key, "-out", new_certificate], check=True, capture_output=True)
    new_key.replace(key)
    new_certificate.replace(certificate)
    deadline = time.monotonic() + 20
    while machines.run(machines.there, show).stdout == before and time.monotonic() < deadline:
        time.sleep(0.2)
    assert machines.run(machines.there, show).stdout != before
