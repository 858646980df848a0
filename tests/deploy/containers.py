"""Images and containers for tests, by podman as root, under names of their own beside whatever else a machine has.

Where there is no registry, the base image is Debian's packages (debootstrap), and the servers of others are stand-ins
(`standins/`): PostgreSQL and Prometheus are Debian's programs, NATS is that of the wheel that `forebay up` uses, and some
lines of Python stand for OpenTelemetry's collector. All of them stay in podman's store, for the next run."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.compose_file import ROOT, TOOLS

OURS = "localhost/forebay-test"
BASE = f"{OURS}/python:3.13"
STANDINS = {
    "nats": "NATS_IMAGE",
    "postgres": "POSTGRES_IMAGE",
    "prometheus": "PROMETHEUS_IMAGE",
    "collector": "OTEL_IMAGE",
}
"""What stands for other people's images → the setting of the compose file that names it."""
VERSION = "0.0.0"
MODEL = "fake-model"
"""Of the engine that stands for the demo."""
SERVICES = ("gateway", "scheduler", "registry", "admin")
WITHOUT_HEALTH = ("otel-collector",)
"""Its image has no program that could ask."""
SCRATCH = ROOT / "build" / "images"
_PORTS = ("GATEWAY_PORT", "PAGES_PORT", "CALLS_PORT", "PROMETHEUS_PORT")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_PROGRAMS = ("podman", "buildah", "runc", "debootstrap", "prometheus")
# crun refuses machines with both kinds of control groups, limits above what root has here fail, and there is no systemd.
_SETTINGS = """[containers]
default_ulimits = ["nofile=20000:20000", "nproc=8192:8192"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
"""


def missing() -> str:
    """Why no container can run here. Empty: they can."""
    if os.getuid() != 0:
        return "needs root: podman runs containers as other users, with limits"
    if lacking := [tool for tool in _PROGRAMS if shutil.which(tool) is None]:
        return f"needs a container engine, and what it is tried with: there is no {', '.join(lacking)}"
    return ""


def environment() -> dict[str, str]:
    SCRATCH.mkdir(parents=True, exist_ok=True)
    settings = SCRATCH / "containers.conf"
    settings.write_text(_SETTINGS)
    return {**os.environ, "CONTAINERS_CONF": str(settings), "PATH": f"{TOOLS}:{os.environ['PATH']}"}


def podman(*words: str, timeout_s: float = 300, check: bool = True) -> str:
    """What it prints. Raises CalledProcessError, with what went wrong in it."""
    done = subprocess.run(
        ("podman", *words), env=environment(), capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if check and done.returncode:
        raise RuntimeError(f"podman {' '.join(words)}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout.strip()


def has_image(name: str) -> bool:
    return subprocess.run(("podman", "image", "exists", name), env=environment(), check=False).returncode == 0


def ensure_base() -> None:
    """A minute the first time."""
    if has_image(BASE):
        return
    root = SCRATCH / "base"
    shutil.rmtree(root, ignore_errors=True)
    packages = "--include=python3,python3-venv,ca-certificates"
    made = subprocess.run(
        ("debootstrap", "--variant=minbase", packages, "trixie", str(root)),
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if made.returncode:
        pytest.skip(f"needs Debian's packages, to make an image's base of: {made.stderr[-300:]}{made.stdout[-300:]}")
    for left in (*root.glob("var/cache/apt/archives/*.deb"), *root.glob("var/lib/apt/lists/*Packages")):
        left.unlink()
    packed = SCRATCH / "base.tar"
    subprocess.run(("tar", "-C", str(root), "-cf", str(packed), "."), check=True, timeout=120)
    path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    podman("import", "--change", path, str(packed), BASE, timeout_s=300)
    packed.unlink()
    shutil.rmtree(root)


def ensure_standins(ours: str) -> None:
    """`ours`: an image of Forebay's, in which the fake engine that stands for the demo runs."""
    context = SCRATCH / "standins"
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(Path(__file__).parent / "standins", context)
    shutil.copytree(ROOT / "tests" / "fakes", context / "fakes", ignore=shutil.ignore_patterns("__pycache__", "test_*"))
    shutil.copy(Path(sysconfig.get_path("scripts")) / "nats-server", context)
    shutil.copy(shutil.which("prometheus") or "", context)
    arguments = ("--build-arg", f"BASE={BASE}", "--build-arg", f"FOREBAY={ours}")
    for target in (*STANDINS, "demo"):
        podman("build", *arguments, "--target", target, "-t", standin(target), str(context), timeout_s=600)
    shutil.rmtree(context)


def standin(name: str) -> str:
    return f"{OURS}/{name}:{VERSION}"


def build_image(service: str, *, compile: bool) -> str:
    """As the Containerfile says how to, with this machine's index of packages. Gives its name."""
    name = f"{OURS}/{service}:{VERSION}"
    arguments = {"BASE": BASE, "SERVICE": service, "COMPILE": str(int(compile)), "VERSION": VERSION}
    words = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
    secrets = {"pip": _pip_settings()} | ({"ca": _CERTIFICATES} if _CERTIFICATES.exists() else {})
    words += [word for key, file in secrets.items() for word in ("--secret", f"id={key},src={file}")]
    file = ROOT / "deploy" / "Containerfile"
    podman(
        *("build", "--format", "docker", "--network", "host", "-f", str(file), *words, "-t", name, str(ROOT)),
        timeout_s=1500,
    )
    return name


def _pip_settings() -> Path:
    """What this machine's pip is told about where packages are, as far as a build can reach it."""
    told = subprocess.run(
        (str(TOOLS / "pip"), "config", "list"), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    lines = ["[global]", "timeout = 180"]
    for key, _, value in (line.partition("=") for line in told):
        if key.startswith("global.") and key.endswith(("index-url", "trusted-host")):
            urls = [url for url in value.strip("'\"").split() if not url.startswith("file:")]
            lines += [f"{key.removeprefix('global.')} = {' '.join(urls)}"] if urls else []
    if _CERTIFICATES.exists():
        lines.append("cert = /run/secrets/ca")
    file = SCRATCH / "pip.conf"
    file.write_text("\n".join(lines) + "\n")
    return file


class Stack:
    """The compose file, up. Its engine is a fake one in a container beside it."""

    def __init__(self, folder: Path, project: str, ports: Mapping[str, int], *, mtls: bool) -> None:
        self.folder = folder
        self.project = project
        self.ports = dict(ports)
        self.mtls = mtls

    def compose(self, *words: str, timeout_s: float = 900) -> None:
        files = ("-f", "compose.yaml", *(("-f", "mtls.yaml") if self.mtls else ()))
        done = subprocess.run(
            ("podman-compose", "-p", self.project, *files, "--profile", "demo", "--profile", "observe", *words),
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"podman-compose {' '.join(words)}: {done.stdout[-3000:]}\n{done.stderr[-6000:]}")

    def name(self, service: str) -> str:
        return f"{self.project}_{service}_1"

    def run_inside(self, service: str, *words: str) -> str:
        return podman("exec", self.name(service), *words)

    def is_healthy(self, service: str) -> bool:
        # There is no systemd to ask every five seconds, so it is asked here.
        asked = ("podman", "healthcheck", "run", self.name(service))
        return subprocess.run(asked, env=environment(), capture_output=True, check=False, timeout=60).returncode == 0

    def wait_healthy(self, services: Sequence[str], within_s: float = 400) -> None:
        left = list(services)

        def are_healthy() -> bool:
            left[:] = [one for one in left if not self.is_healthy(one)]
            return not left

        wait_until(are_healthy, within_s, lambda: self.tell(left))

    def tell(self, services: Sequence[str]) -> str:
        return "\n".join(f"--- {one}\n{self.log(one, '--tail', '15')}" for one in services)

    def log(self, service: str, *options: str) -> str:
        """All that it wrote: NATS and PostgreSQL speak on standard error."""
        asked = ("podman", "logs", *options, self.name(service))
        both = subprocess.run(
            asked,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=60,
        )
        return both.stdout

    def operate(self, *words: str) -> str:
        """`forebay …`, as the README says."""
        where = f"FOREBAY_ADMIN=127.0.0.1:8092{' FOREBAY_ADMIN_CA=/etc/forebay/pki/ca.crt' if self.mtls else ''}"
        command = f'{where} FOREBAY_TOKEN=$(cat /var/lib/forebay/admin.key) forebay "$@"'
        return self.run_inside("admin", "sh", "-c", command, "forebay", *words)

    @property
    def key(self) -> str:
        """The first admin's."""
        return self.run_inside("admin", "cat", "/var/lib/forebay/admin.key")

    def ask(self, path: str, key: str, body: dict[str, Any] | None = None, **headers: str) -> tuple[int, str]:
        """Status, of 0 where nothing answered, and text."""
        request = urllib.request.Request(
            f"{self.url('GATEWAY_PORT')}{path}",
            data=json.dumps(body).encode() if body else None,
            headers={"authorization": f"Bearer {key}", "content-type": "application/json", **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=60, context=self.trust()) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, repr(error)

    def url(self, port: str) -> str:
        return f"http{'s' if self.mtls else ''}://127.0.0.1:{self.ports[port]}"

    def trust(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self.folder / "secrets/pki/admin/ca.crt") if self.mtls else None

    def process(self, service: str) -> int:
        """The process id of what runs in it, as the machine sees it."""
        return int(podman("inspect", "-f", "{{.State.Pid}}", self.name(service)))


def wait_until(is_so: Callable[[], bool], within_s: float, why_not: Callable[[], str] = lambda: "") -> None:
    until = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {within_s:.0f} s\n{why_not()}")
        time.sleep(0.5)


@contextmanager
def deployed(image: str, folder: Path, *, services: Sequence[str], mtls: bool = False) -> Iterator[Stack]:
    """Up and healthy, from nothing but the files of deploy/, with an engine that the fleet knows."""
    ensure_standins(image)
    for service in SERVICES:
        podman("tag", image, f"{OURS}/{service}:{VERSION}")
    for part in ("compose", "observe"):
        shutil.copytree(ROOT / "deploy" / part, folder / part, ignore=shutil.ignore_patterns("secrets", ".env"))
    ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
    settings = {
        **ports,
        **{setting: standin(name) for name, setting in STANDINS.items()},
        "FOREBAY_IMAGES": OURS,
        "FOREBAY_VERSION": VERSION,
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel-collector:4318" if "otel-collector" in services else "",
    }
    place = folder / "compose"
    (place / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    make_secrets(place, *(("--mtls",) if mtls else ()))
    stack = Stack(place, f"forebay-test{'-mtls' if mtls else ''}", ports, mtls=mtls)
    stack.compose("down", "-v")  # of a run that was ended
    try:
        stack.compose("up", "-d", "volumes", *services)
        stack.wait_healthy([one for one in services if one not in WITHOUT_HEALTH])
        stack.operate("backend", "add", "demo", "http://demo:8080", "--slots", "8")
        key = stack.key
        wait_until(
            lambda: MODEL in stack.ask("/v1/models", key)[1], 60, lambda: stack.tell(["registry", "gateway-1", "demo"])
        )
        yield stack
    finally:
        stack.compose("down", "-v", "-t", "5")


def chat(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20, **more}


def make_secrets(place: Path, *words: str) -> None:
    subprocess.run(
        (str(place / "make-secrets"), *words),
        env={**environment(), "ENGINE": "podman"},
        check=True,
        capture_output=True,
        timeout=300,
    )


def _free_ports(number: int) -> list[int]:
    opened = [socket.socket() for _ in range(number)]
    for one in opened:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in opened]
    for one in opened:
        one.close()
    return ports
