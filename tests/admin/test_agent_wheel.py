"""The wheel that a node installs is cut out of this installation, and really installs and runs."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from forebay_admin.fleet.agent_wheel import Wheel, build_wheel


@pytest.fixture(scope="module")
def wheel() -> Wheel:
    return build_wheel()


def contents(wheel: Wheel) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(wheel.content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_same_installation_always_gives_the_same_bytes(wheel: Wheel) -> None:
    assert build_wheel() == wheel
    assert wheel.file_name == f"forebay-{version('forebay')}-py3-none-any.whl"


def test_it_holds_the_ground_and_the_agent_and_nothing_else(wheel: Wheel) -> None:
    names = contents(wheel)
    assert "forebay/launch.py" in names
    assert "forebay_gpu_agent/cli.py" in names
    assert not [name for name in names if name.startswith(("forebay/local/", "forebay_admin", "forebay_gateway"))]
    assert not [name for name in names if "__pycache__" in name]
    points = names[f"forebay-{version('forebay')}.dist-info/entry_points.txt"].decode()
    assert "forebay = forebay.launch:main" in points
    assert "agent = forebay_gpu_agent.cli:agent" in points
    assert "forebay_admin" not in points


def test_its_record_fits_its_files(wheel: Wheel) -> None:
    names = contents(wheel)
    record = next(name for name in names if name.endswith("/RECORD"))
    rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(names[record].decode()))}
    assert set(rows) == set(names)
    for name, content in names.items():
        if name != record:
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            assert rows[name] == [f"sha256={digest}", str(len(content))]


def test_pip_installs_it_and_the_agents_command_runs(wheel: Wheel, tmp_path: Path, libraries: Path) -> None:
    file, place = tmp_path / wheel.file_name, tmp_path / "installed"
    file.write_bytes(wheel.content)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(place)]
    subprocess.run([*pip, str(file)], check=True)
    assert (place / "bin" / "forebay").exists()

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        """With what pip installed and its libraries, and not with the Forebay that runs this test."""
        environment = {"PYTHONPATH": f"{place}:{libraries}"}
        return subprocess.run(
            [sys.executable, "-S", *words], capture_output=True, text=True, env=environment, cwd=tmp_path
        )

    where = run("-c", "import forebay, forebay_gpu_agent; print(forebay.__file__, forebay_gpu_agent.__file__)")
    assert where.stdout.count(str(place)) == 2, where.stderr
    told = run("-m", "forebay", "agent", "--help")
    assert told.returncode == 0, told.stderr
    assert "join" in told.stdout
