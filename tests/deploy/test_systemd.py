"""The units of systemd: hardened as far as is promised, for settings that services take, with secrets that only their own
service reads. There is no systemd that runs here; its own tools read the files."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import stat
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from forebay.config import read_settings, unknown_tables
from forebay.launch import load_services
from forebay.local.deployment_secrets import Deployment, make_secrets
from forebay.pki.folder import Folder, make_folder

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


@pytest.mark.parametrize(
    "unit",
    [
        *(f"forebay@{name}.service" for name in SERVICES),
        "forebay-gpu-agent.service",
        "forebay-certificates.service",
    ],
)
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


def test_certificates_are_looked_at_daily(units: Path) -> None:
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "./forebay-certificates.timer"],
        cwd=units, capture_output=True, text=True,
    )  # fmt: skip
    assert (verified.returncode, verified.stderr.strip()) == (0, "")
    timer = _parsed("forebay-certificates.timer")["Timer"]
    told = subprocess.run(
        ["systemd-analyze", "calendar", "--iterations=2", timer["OnCalendar"]],
        check=True, capture_output=True, text=True, env={**os.environ, "TZ": "UTC", "LC_ALL": "C"},
    ).stdout  # fmt: skip
    days = re.findall(r"(?:Next elapse|Iter. #2): \w+ ([0-9-]+)", told)
    assert date.fromisoformat(days[1]) - date.fromisoformat(days[0]) == timedelta(days=1), told
    assert timer["Persistent"] == "yes"


def _parsed(unit: str) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read(SYSTEMD / "system" / unit)
    return parsed


def test_a_unit_waits_for_longer_than_its_gateway_drains() -> None:
    unit = _parsed("forebay@.service")
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
    groups = _users_made(tmp_path)
    _given_to_users(tmp_path)
    for name in SERVICES:
        own = secrets / FOLDERS.get(name, name)
        for path in (own, *own.iterdir()):
            found = path.stat()
            assert (found.st_uid, found.st_gid) == (0, groups[f"forebay-{name}"]), path
            assert stat.S_IMODE(found.st_mode) == (0o750 if path.is_dir() else 0o640), path
    assert all(path.stat().st_mode & 0o077 == 0 for path in (secrets / "kept").rglob("*"))


@pytest.fixture
def machine() -> Iterator[Path]:
    """The root of one, through which each user may pass."""
    root = Path(tempfile.mkdtemp(prefix="forebay-"))
    root.chmod(0o711)
    (root / "etc").mkdir()
    yield root
    shutil.rmtree(root)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: files are given to users")
def test_certificates_are_renewed_by_a_user_of_their_own_and_each_service_reads_its_own_alone(machine: Path) -> None:
    users = _users_made(machine)
    _given_to_users(machine)
    root, parts = machine / "etc" / "forebay" / "pki", ("gateway-1", "scheduler", "registry", "admin", "nats")
    pki, now = users["forebay-pki"], datetime.now(UTC)
    with _acting_as(pki):
        made = make_folder(root, now)
        for part in parts:
            made.issue(part, (), now, timedelta(days=1))
    os.chown(root / "nats", -1, 4321)  # as for a NATS of the distribution's
    os.chown(root / "nats" / "tls.key", -1, 4321)
    _given_to_users(machine)
    before = {part: (root / part / "tls.key").read_bytes() for part in parts}
    for _ in range(2):  # as issued, and as renewed
        owned = {**{part: users[f"forebay-{part.removesuffix('-1')}"] for part in parts[:4]}, "nats": 4321}
        for part, group in owned.items():
            folder, key = (root / part).stat(), (root / part / "tls.key").stat()
            assert (folder.st_uid, folder.st_gid, stat.S_IMODE(folder.st_mode)) == (pki, group, 0o2750), part
            assert (key.st_uid, key.st_gid, stat.S_IMODE(key.st_mode)) == (pki, group, 0o640), part
        kept = (root / "ca" / "ca.key").stat()
        assert (kept.st_uid, stat.S_IMODE(kept.st_mode)) == (pki, 0o600)
        assert stat.S_IMODE((root / "ca").stat().st_mode) == 0o700
        with _acting_as(pki):
            Folder(root).renew(now + timedelta(days=2), timedelta(days=9))
    assert all((root / part / "tls.key").read_bytes() != key for part, key in before.items())


def _users_made(root: Path) -> dict[str, int]:
    """The group of each, whose number is the user's too."""
    subprocess.run(
        ["systemd-sysusers", f"--root={root}", str(SYSTEMD / "sysusers.d" / "forebay.conf")],
        check=True,
        capture_output=True,
    )
    lines = [line.split(":") for line in (root / "etc" / "group").read_text().splitlines()]
    users = {name: int(number) for name, _, number, _ in lines}
    for line in (root / "etc" / "passwd").read_text().splitlines():
        name, _, uid, gid, *_ = line.split(":")
        assert name not in users or uid == gid == str(users[name])
    return users


def _given_to_users(root: Path) -> None:
    subprocess.run(
        ["systemd-tmpfiles", f"--root={root}", "--create", str(SYSTEMD / "tmpfiles.d" / "forebay.conf")],
        check=True,
        capture_output=True,
    )


@contextmanager
def _acting_as(user: int) -> Iterator[None]:
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(user)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
