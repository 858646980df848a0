"""The environment that an upgrade goes to."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from forebay.errors import BadInput, CannotStart, Unavailable
from forebay.local.data_directory import DataDirectory, open_data_directory
from forebay.local.started import Started, read_started, started_file, write_started
from forebay.local.upgrade.control import ask_control
from forebay.local.upgrade.environment import (
    Environment,
    clear_environments,
    find_environment,
    make_environment,
    place_of,
)


async def test_an_environment_says_which_version_is_in_it() -> None:
    found = await find_environment(Path(sys.prefix))
    assert found is not None
    assert (found.version, Path(found.python)) == (version("forebay"), Path(sys.prefix) / "bin" / "python")


async def test_what_is_none_is_told_apart_from_one_in_which_forebay_does_not_run(tmp_path: Path) -> None:
    assert await find_environment(tmp_path) is None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to("/bin/false")
    with pytest.raises(CannotStart, match="does not run in the environment"):
        await find_environment(tmp_path)


async def test_a_folder_without_a_wheel_and_a_wheel_that_is_none_leave_no_environment(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nor a wheel"):
        await make_environment(tmp_path / "made", tmp_path, None)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "forebay-1.0-py3-none-any.whl").write_text("no wheel")
    with pytest.raises(CannotStart, match=r"forebay-1\.0-py3-none-any\.whl could not be installed"):
        await make_environment(tmp_path / "made", wheels, None)
    assert not (tmp_path / "made").exists()


async def test_a_lock_names_wheels_by_paths_that_begin_where_it_lies_and_lets_nothing_else_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    house, elsewhere = tmp_path / "house", tmp_path / "elsewhere"
    (house / "wheels").mkdir(parents=True)
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    wheel, lock = _wheel(house / "wheels"), house / "lock.txt"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock.write_text(f"./wheels/{wheel.name} --hash=sha256:{digest}\n")
    made = await make_environment(tmp_path / "made", house / "wheels", lock)
    assert made == Environment(str(tmp_path / "made" / "bin" / "python"), "7.8.9")
    lock.write_text(f"./wheels/{wheel.name} --hash=sha256:{'0' * 64}\n")
    with pytest.raises(CannotStart, match="DO NOT MATCH"):
        await make_environment(tmp_path / "refused", house / "wheels", lock)
    assert not (tmp_path / "refused").exists()


def _wheel(folder: Path) -> Path:
    """Of a Forebay that knows its version and nothing else."""
    file = folder / "forebay-7.8.9-py3-none-any.whl"
    metadata = "forebay-7.8.9.dist-info"
    content = {
        "forebay/__init__.py": "",
        "forebay/__main__.py": """print('{"version": "7.8.9"}')""",
        f"{metadata}/METADATA": "Metadata-Version: 2.1\nName: forebay\nVersion: 7.8.9\nProvides-Extra: local\n",
        f"{metadata}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*content, f"{metadata}/RECORD"))
    with zipfile.ZipFile(file, "w") as packed:
        for name, text in {**content, f"{metadata}/RECORD": record}.items():
            packed.writestr(name, text)
    return file


def test_an_environment_is_never_made_where_one_is_which_may_be_running(tmp_path: Path) -> None:
    wheels, below = tmp_path / "wheels", tmp_path / "upgrades"
    wheels.mkdir()
    (wheels / "forebay-1.3.0-py3-none-any.whl").touch()
    first = place_of(wheels, below)
    assert first == below / "forebay-1.3.0-py3-none-any"
    first.mkdir(parents=True)
    assert place_of(wheels, below) == below / "forebay-1.3.0-py3-none-any-2"


def test_environments_that_were_made_go_but_for_those_that_are_used(tmp_path: Path) -> None:
    below, elsewhere = tmp_path / "upgrades", tmp_path / "elsewhere"
    for name in ("a", "b", "c", "d"):
        (below / name / "bin").mkdir(parents=True)
        (below / name / "pyvenv.cfg").touch()
        (below / name / "bin" / "python").symlink_to(sys.executable)
    (below / "not-ours").mkdir()
    elsewhere.symlink_to(below / "c")
    used = [below / "a" / "bin" / "python", elsewhere / "bin" / "python", below / "d" / "lib" / "x" / "pginstall"]
    assert clear_environments(below, used) == [below / "b"]
    assert sorted(path.name for path in below.iterdir()) == ["a", "c", "d", "not-ours"]
    assert clear_environments(tmp_path / "none", used) == []


def test_what_runs_is_known_by_the_lock_and_not_by_a_file_that_was_left(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path / "data")
    assert read_started(data) is None
    with open_data_directory(data.root):
        with pytest.raises(Unavailable, match="starting or stopping"):
            read_started(data)
        write_started(data, Started(pid=os.getpid(), version="1.2.3"))
        started = read_started(data)
        assert started is not None
        assert started.version == "1.2.3"
        file = started_file(data)
        file.write_text(file.read_text().replace('"pid"', '"of_a_later_version": 1, "pid"'))
        assert read_started(data) == started
    assert read_started(data) is None


async def test_nobody_who_listens_is_said_so(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path)
    (tmp_path / "run").mkdir()
    with pytest.raises(Unavailable, match="takes no questions"):
        await anext(ask_control(data, ask="plan"))
