"""What the doctor sees of real files, ports, servers and services, and how it is told."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from forebay.doctor import looking
from forebay.doctor.files import judge_directory, judge_file
from forebay.launch import cli
from forebay.local.deployment_secrets import Deployment, make_secrets
from forebay.ops import Ops, serve_ops
from tests.conftest import NatsServer, free_port
from tests.system.installation import free_base_port


def _certificate(folder: Path, name: str, days: int = 90) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    named = [f"-days={days}", f"-subj=/CN={name}", f"-addext=subjectAltName=DNS:{name}"]
    options = [part for option in named for part in option.split("=", 1)]
    subprocess.run([*made, *options, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


def test_certificates_are_read_with_their_names_their_key_and_who_signed_them(tmp_path: Path) -> None:
    own, other = _certificate(tmp_path, "gateway-1"), _certificate(tmp_path, "elsewhere")
    facts = looking.certificate_facts(own[0], own[1], own[0])
    assert not isinstance(facts, str)
    assert (facts.subject, facts.names, facts.fits_key, facts.is_signed_by_ours) == (
        "CN=gateway-1",
        ("gateway-1",),
        True,
        True,
    )
    mixed = looking.certificate_facts(own[0], other[1], other[0])
    assert not isinstance(mixed, str)
    assert (mixed.fits_key, mixed.is_signed_by_ours) == (False, False)
    (tmp_path / "no.pem").write_text("nothing")
    assert isinstance(looking.certificate_facts(tmp_path / "no.pem", None, None), str)
    assert looking.certificate_facts(tmp_path / "away.pem", None, None) == "No such file or directory"


def test_a_file_in_a_folder_that_is_closed_to_us_is_not_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root, whom no folder is closed to."""
    closed = tmp_path / "closed" / "tls.key"
    stat = os.stat

    def refused(path: Any, *args: Any, **named: Any) -> os.stat_result:
        if str(path).startswith(str(closed)):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, *args, **named)

    monkeypatch.setattr(os, "stat", refused)
    found = judge_file("gateway.internal_key_file", str(closed), looking.path_facts(closed))
    assert (found.grade, "cannot be read by this user" in found.found) == ("fail", True)
    directory = judge_directory(
        "gateway.snapshot_dir", str(closed), looking.path_facts(closed), looking.can_be_made(closed)
    )
    assert "cannot be written by this user" in directory.found


@pytest.fixture
def taken() -> Iterator[tuple[str, int]]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        yield one.getsockname()


def test_a_port_that_is_taken_and_a_peer_that_is_there(taken: tuple[str, int]) -> None:
    assert not looking.try_port(*taken).is_free
    assert looking.reach(*taken)[0] is not None
    gone = free_port()
    assert looking.try_port("127.0.0.1", gone).is_free
    assert looking.reach("127.0.0.1", gone) == (None, "Connection refused")
    assert "is not known" in looking.reach("no-such-name.invalid", 1)[1]


def test_what_answers_and_is_no_nats_is_told_so() -> None:
    ops = Ops("admin")
    with serve_ops(ops, "127.0.0.1:0") as address:
        host, _, port = address.rpartition(":")
        assert isinstance(looking.ask_nats(host, int(port)), str)
        told = looking.ask_ops(host, int(port))
    assert told is not None
    assert (told.service, bool(told.version)) == ("admin", True)
    assert looking.ask_ops(host, int(port)) is None


async def test_a_database_tells_its_version_and_its_time(postgres_url: str) -> None:
    told = await asyncio.to_thread(looking.ask_postgres, postgres_url)
    assert not isinstance(told, str), told
    facts, ahead_s, uncertain_s = told
    assert facts.version.startswith("18")
    assert facts.most_connections >= facts.connections >= 1
    assert abs(ahead_s) <= uncertain_s + 1
    wrong = await asyncio.to_thread(looking.ask_postgres, postgres_url.replace("://", "://nobody-", 1))
    assert isinstance(wrong, str)


async def _doctor(*words: str, environ: dict[str, str] | None = None) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, cli, ["doctor", *words], None, environ)


async def test_a_machine_that_is_ready_and_what_is_wrong_when_it_is_not(
    tmp_path: Path, nats_server: NatsServer, postgres_url: str
) -> None:
    secrets = tmp_path / "secrets"
    make_secrets(secrets, Deployment(gateways=("gateway-1",), nats_servers=("127.0.0.1",), postgres="127.0.0.1:5432"))
    url = secrets / "registry" / "database_url"
    url.write_text(postgres_url)
    url.chmod(0o600)
    certificate, key = _certificate(tmp_path, "registry")
    file = tmp_path / "forebay.toml"
    file.write_text(
        f"""
[registry]
listen = "127.0.0.1:{free_port()}"
ops_listen = "127.0.0.1:{free_port()}"
admin_address = "127.0.0.1:{free_port()}"
nats_url = "{nats_server.url}"
token_file = "{secrets}/registry/token"
callers_file = "{secrets}/registry/callers"
database_url_file = "{url}"
snapshot_key_file = "{secrets}/registry/snapshot.key"
snapshot_dir = "{tmp_path}/snapshots"
internal_ca_file = "{certificate}"
internal_cert_file = "{certificate}"
internal_key_file = "{key}"
"""
    )
    environ = {"NATS_URL": "", "DATABASE_URL": ""}
    result = await _doctor("--config", str(file), "--json", environ=environ)
    told = json.loads(result.output)
    assert result.exit_code == 0, _of(told, "fail")
    assert told["worst"] in ("ok", "warn")
    subjects = {one["subject"] for one in told["findings"] if one["grade"] == "ok"}
    assert {"registry.nats_url", "registry.database_url_file", "registry.internal_cert_file"} <= subjects
    assert postgres_url not in result.output, "it has a password in it"

    (secrets / "registry" / "token").chmod(0o644)
    (secrets / "registry" / "callers").unlink()
    key.write_bytes(_certificate(tmp_path, "other")[1].read_bytes())
    result = await _doctor("registry", "--config", str(file), environ=environ)
    assert result.exit_code == 1
    for said in ("registry.token_file", "chmod o= ", "callers does not exist", "belongs to another", "3 wrong"):
        assert said in result.output, result.output
    quiet = await _doctor("registry", "--config", str(file), "--quiet", environ=environ)
    assert "✓" not in quiet.output
    assert "✗" in quiet.output


async def test_settings_that_are_wrong_are_all_told_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "forebay.toml"
    file.write_text('[scheduler]\nfence = 3\nheartbeat_s = "often"\n[schedule]\n')
    result = await _doctor("scheduler", "--config", str(file), "--json", environ={"NATS_URL": ""})
    told = json.loads(result.output)
    assert result.exit_code == 1
    wrong = _of(told, "fail")
    for said in ("schedule", "fence", "heartbeat_s", "token_file"):
        assert any(said in one["found"] for one in wrong), said
    assert any(one["area"] == "machine" for one in told["findings"])


async def test_an_agents_settings_are_right_as_they_come(tmp_path: Path, nats_server: NatsServer) -> None:
    file = tmp_path / "agent.toml"
    for disk, grade in ((tmp_path, "ok"), (tmp_path / "not mounted", "warn")):
        file.write_text(
            f"""
[gpu_agent]
node = "gpu-1"
nats_url = "{nats_server.url}"
ops_listen = "127.0.0.1:{free_port()}"
disk_path = "{disk}"
"""
        )
        told = json.loads(
            (await _doctor("gpu-agent", "--config", str(file), "--json", environ={"NATS_URL": ""})).output
        )
        assert _of(told, "fail") == []
        (disk_path,) = (one for one in told["findings"] if one["subject"] == "gpu-agent.disk_path")
        assert disk_path["grade"] == grade, disk_path


async def test_without_settings_the_machine_and_the_ports_of_up_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = json.loads((await _doctor("--json", environ={"FOREBAY_DATA_DIR": str(tmp_path)})).output)
    assert {"machine", "clocks", "ports"} == {one["area"] for one in told["findings"]}
    assert any(one["subject"] == f"room in {tmp_path}" for one in told["findings"])


async def test_what_up_runs_is_looked_at_where_it_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base, environ = free_base_port(), {"FOREBAY_DATA_DIR": str(tmp_path)}
    (tmp_path / "connection.json").write_text(json.dumps({"gateway": f"http://127.0.0.1:{base}"}))
    pki = tmp_path / "secrets" / "pki" / "gateway-1"
    pki.mkdir(parents=True)
    for made, name in zip(_certificate(tmp_path, "gateway-1", days=3), ("tls.crt", "tls.key"), strict=True):
        made.rename(pki / name)
    (pki / "ca.crt").write_bytes((pki / "tls.crt").read_bytes())
    (pki.parent / "ca").mkdir()
    _certificate(tmp_path, "authority")[0].rename(pki.parent / "ca" / "ca.crt")

    with socket.socket() as other:
        other.bind(("127.0.0.1", base))
        told = json.loads((await _doctor("--json", environ=environ)).output)
    ports = {one["subject"]: one for one in told["findings"] if one["area"] == "ports"}
    assert ports["gateway-1"]["grade"] == "fail"
    assert "forebay up --base-port" in ports["gateway-1"]["advice"]
    assert ports["PostgreSQL"]["found"].startswith(f"127.0.0.1:{base + 11} ")
    certificates = [(one["subject"], one["grade"]) for one in told["findings"] if one["area"] == "certificates"]
    assert certificates == [("the authority", "ok"), ("of gateway-1", "warn")]

    with serve_ops(Ops("admin"), f"127.0.0.1:{base + 8}"):
        told = json.loads((await _doctor("--json", environ=environ)).output)
    ports = {one["subject"]: one for one in told["findings"] if one["area"] == "ports"}
    assert ports["ops of admin"]["found"] == f"127.0.0.1:{base + 8}: `forebay up` runs there"
    assert [one["subject"] for one in told["findings"] if one["area"] == "versions"] == ["admin"]

    (tmp_path / "connection.json").write_text("{}")
    told = json.loads((await _doctor("--json", environ=environ)).output)
    assert [one["subject"] for one in told["findings"] if one["grade"] == "unknown"] == ["connection.json"]


def _of(told: Any, grade: str) -> list[dict[str, str]]:
    return [one for one in told["findings"] if one["grade"] == grade]
