"""`forebay up` itself: it finds its data again, stops all that it started, and says in one sentence what is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import aiohttp
import pytest

from tests.system.conftest import FakeEngineProcess
from tests.system.installation import Installation, ask, eventually, free_base_port, start_up, stream


def _settings(directory: Path, engine: FakeEngineProcess) -> Path:
    settings = directory / "forebay.toml"
    settings.write_text(f'[[registry.backends]]\nname = "fake"\nurl = "{engine.url}"\nkind = "openai"\nslots = 4\n')
    return settings


async def test_killed_it_leaves_no_orphans_and_the_next_start_finds_its_data_and_lets_streams_finish_when_it_stops(
    tmp_path: Path, fake_engine: FakeEngineProcess, client: aiohttp.ClientSession
) -> None:
    data_dir, settings = tmp_path / "data", _settings(tmp_path, fake_engine)
    first = start_up(data_dir, "--no-engine", "--config", str(settings))
    try:
        assert first.key in first.output
        assert json.loads((data_dir / "connection.json").read_text()).keys() >= {
            "gateway",
            "admin_http",
            "admin_grpc",
            "admin_key",
        }
        made = first.cli("user", "add", "alice")
        key = first.cli("key", "create", "--user", "alice")["secret"]
        assert made["name"] == "alice"
        parts = _parts(first)
    finally:
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(5)
    await _all_gone(parts)

    # The lock and the pid files it left behind are no obstacle.
    second = start_up(data_dir, "--no-engine", "--config", str(settings), base_port=first.base_port)
    try:
        parts = _parts(second)
        assert second.key == first.key
        assert second.key not in second.output, "the first key is told once"
        assert "alice" in {user["name"] for user in second.cli("user", "list")}
        begun = asyncio.Event()
        body = ask("Go on.", model="fake-model", max_tokens=40)
        streaming = asyncio.create_task(stream(client, second.gateway, key, body, "drained", begun))
        await begun.wait()
    finally:
        second.process.send_signal(signal.SIGTERM)
    result = await streaming
    assert result.is_done, result
    assert len(result.arrivals) == 40
    assert await asyncio.to_thread(second.process.wait, 40) == 0
    await _all_gone(parts)


def _parts(running: Installation) -> dict[str, int]:
    parts: dict[str, int] = json.loads((running.data_dir / "run" / "processes.json").read_text())
    assert parts
    return parts


async def _all_gone(parts: dict[str, int]) -> None:
    await eventually(lambda: not any(_lives(pid) for pid in parts.values()), 30, f"not all of {parts} ended")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _fails(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "forebay", "up", *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return done.stderr.strip()


def test_a_data_directory_in_use_is_one_clear_sentence(installation: Installation) -> None:
    told = _fails("--data-dir", str(installation.data_dir), "--base-port", str(free_base_port()), "--no-engine")
    assert str(installation.data_dir) in told
    assert len(told.splitlines()) == 1
    assert str(installation.process.pid) in told


def test_a_port_in_use_is_one_clear_sentence(tmp_path: Path) -> None:
    base = free_base_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", base + 3))
        taken.listen()
        told = _fails("--data-dir", str(tmp_path / "data"), "--base-port", str(base), "--no-engine")
    assert str(base + 3) in told
    assert "--base-port" in told
    assert len(told.splitlines()) == 1


_AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--reset-env")


def _python_for_others() -> str | None:
    """An interpreter of this version that a plain user may run; ours may lie in root's own folders."""
    if os.getuid() != 0 or not shutil.which("setpriv"):
        return None
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"):
        if subprocess.run([*_AS_NOBODY, "env", python, "-c", ""], capture_output=True).returncode == 0:
            return python
    return None


@pytest.mark.skipif(_python_for_others() is None, reason="needs root, and a Python that a plain user may run")
def test_it_runs_as_a_plain_user_too(fake_engine: FakeEngineProcess) -> None:
    home = Path(tempfile.mkdtemp(prefix="forebay-plain-"))
    os.chown(home, 65534, 65534)
    settings = _settings(home, fake_engine)
    settings.chmod(0o644)
    packages = os.pathsep.join([str(Path(__file__).parents[2]), sysconfig.get_path("purelib"), *_service_packages()])
    python = _python_for_others()
    assert python is not None
    try:
        running = start_up(
            home / "data",
            "--no-engine",
            "--config",
            str(settings),
            prefix=(
                *_AS_NOBODY,
                "env",
                f"HOME={home}",
                f"PYTHONPATH={packages}",
                f"PATH={sysconfig.get_path('scripts')}:{os.environ['PATH']}",
            ),
            python=python,
        )
        owners = {path.stat().st_uid for path in (home / "data").rglob("*")}
        assert owners == {65534}
        assert running.stop() == 0
    finally:
        shutil.rmtree(home)


def _service_packages() -> list[str]:
    """An editable installation names them in a file that only the environment's own interpreter reads."""
    return [str(path) for path in (Path(__file__).parents[2] / "services").iterdir() if path.is_dir()]
