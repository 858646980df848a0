"""The units of systemd: hardened as far as is promised, for settings that services take, with secrets that only their own
service reads. There is no systemd that runs here; its own tools read the files."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

from forebay.config import read_settings, unknown_tables
from forebay.launch import load_services
from forebay.local.deployment_secrets import Deployment, make_secrets

pytestmark = pytest.mark.deploy
ROOT = Path(__file__).parents[2]
SYSTEMD = ROOT / "deploy" / "systemd"
SERVICES = ("gateway", "scheduler", "registry", "admin")
FOLDERS = {"gateway": "gateway-1"}
"""Of those whose secrets lie under another name, as `forebay secrets make` writes them."""
MOST_EXPOSED = 2.0


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, for an installation that is there."""
    for unit in (SYSTEMD / "system").iterdir():
        told = unit.read_text().replace("/opt/forebay/current/bin/forebay", shutil.which("true") or "")
        (tmp_path / unit.name).write_text(told)
    return tmp_path


@pytest.mark.parametrize("unit", [*(f"forebay@{name}.service" for name in SERVICES), "forebay-gpu-agent.service"])
def test_a_unit_leaves_little_to_whoever_takes_over_its_service(units: Path, unit: str) -> None:
    template = re.sub(r"@\w+", "@", unit)
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", template],
        cwd=units, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    (exposure,) = re.findall(r"Overall exposure level for .*: ([0-9.]+)", told.stdout)
    assert 0 < float(exposure) <= MOST_EXPOSED, told.stdout
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", f"./{unit}"], cwd=units, capture_output=True, text=True
    )
    assert verified.returncode == 0, verified.stderr
    assert verified.stderr.strip() == ""


def test_a_unit_waits_for_longer_than_its_gateway_drains() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(SYSTEMD / "system" / "forebay@.service")
    (gateway,) = load_services(["gateway"])
    drains_s = {field.name: field for field in gateway.settings.__dataclass_fields__.values()}["drain_s"].default
    assert float(unit["Service"]["TimeoutStopSec"]) > drains_s


@pytest.mark.parametrize("name", SERVICES)
def test_its_settings_are_ones_that_the_service_takes_and_name_files_that_are_made(name: str, tmp_path: Path) -> None:
    file = tomllib.loads((SYSTEMD / "forebay.toml").read_text())
    assert unknown_tables(file, SERVICES) == []
    (service,) = load_services([name])
    read_settings(service.settings, name, file=file, environ={})

    folder = tmp_path / "secrets"
    made = make_secrets(
        folder, Deployment(gateways=("gateway-1",), nats_servers=("127.0.0.1",), postgres="127.0.0.1:5432")
    )
    own = FOLDERS.get(name, name)
    named = {Path(value).name for value in file[name].values() if str(value).startswith(f"/etc/forebay/secrets/{own}/")}
    assert named == set(made[own])
    assert file["gateway"]["name"] == FOLDERS["gateway"], "its name is its user on NATS"
    state = [value for value in file[name].values() if str(value).startswith("/var/")]
    assert all(value.startswith(f"/var/lib/forebay/{name}/") for value in state), state


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: files are given to users")
def test_each_service_reads_its_own_secrets_and_nobody_elses(tmp_path: Path) -> None:
    (tmp_path / "etc" / "forebay").mkdir(parents=True)
    secrets = tmp_path / "etc" / "forebay" / "secrets"
    make_secrets(secrets, Deployment(gateways=("gateway-1",), nats_servers=("127.0.0.1",), postgres="127.0.0.1:5432"))
    for tool, folder in (("systemd-sysusers", "sysusers.d"), ("systemd-tmpfiles", "tmpfiles.d")):
        options = ["--create"] if tool == "systemd-tmpfiles" else []
        subprocess.run(
            [tool, f"--root={tmp_path}", *options, str(SYSTEMD / folder / "forebay.conf")],
            check=True,
            capture_output=True,
        )
    groups = {
        line.split(":")[0]: int(line.split(":")[2]) for line in (tmp_path / "etc" / "group").read_text().splitlines()
    }
    for name in SERVICES:
        own = secrets / FOLDERS.get(name, name)
        for path in (own, *own.iterdir()):
            found = path.stat()
            assert (found.st_uid, found.st_gid) == (0, groups[f"forebay-{name}"]), path
            assert stat.S_IMODE(found.st_mode) == (0o750 if path.is_dir() else 0o640), path
    assert all(path.stat().st_mode & 0o077 == 0 for path in (secrets / "kept").rglob("*"))
