"""Who may use a data directory, and what is said when it cannot be used."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import CannotStart
from forebay.local.data_directory import default_root, open_data_directory


def test_secrets_are_closed_and_the_database_user_can_pass_through(place: Path) -> None:
    with open_data_directory(place / "new" / "data") as data:
        assert stat.S_IMODE(data.secrets.stat().st_mode) == 0o700
        assert stat.S_IMODE(data.root.stat().st_mode) & 0o001


def test_a_second_start_on_the_same_directory_is_told_who_holds_it(place: Path) -> None:
    with (
        open_data_directory(place),
        pytest.raises(CannotStart, match=rf"already runs on {place} \(process {os.getpid()}\): stop it"),
        open_data_directory(place),
    ):
        pytest.fail("two owners")


def test_a_lock_left_by_a_process_that_was_killed_is_no_obstacle(place: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from forebay.local.data_directory import open_data_directory
with open_data_directory(Path({str(place)!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script], check=False)
    assert killed.returncode == -9
    assert (place / "lock").read_text().strip().isdigit()
    with open_data_directory(place) as data:
        assert (data.root / "lock").read_text().strip() == str(os.getpid())


def test_a_full_disk_is_one_sentence(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nearly_full(_: Any) -> Any:
        return shutil._ntuple_diskusage(100_000_000_000, 99_990_000_000, 10_000_000)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    with (
        pytest.raises(CannotStart, match=r"is full: 10 MB are free and 500 MB are needed to start\. Free some"),
        open_data_directory(place),
    ):
        pytest.fail("started on a full disk")


def test_a_place_that_cannot_be_written_is_one_sentence(place: Path) -> None:
    (place / "file").touch()
    with (
        pytest.raises(CannotStart, match=r"cannot be written \(Not a directory.*give another with --data-dir"),
        open_data_directory(place / "file" / "data"),
    ):
        pytest.fail("wrote into a file")


def test_root_and_people_have_their_customary_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_root() == Path("/var/lib/forebay")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert default_root() == Path("/home/ada/.local/share/forebay")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_root() == Path("/data/forebay")
