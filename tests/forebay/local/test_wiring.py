"""What services are told is what they ask for."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from forebay.config import read_settings
from forebay.launch import load_services
from forebay.local.data_directory import open_data_directory
from forebay.local.front import open_front
from forebay.local.layout import Layout
from forebay.local.mtls import open_mtls
from forebay.local.nats import Nats
from forebay.local.service_secrets import CALLERS, keep_service_secrets
from forebay.local.wiring import Wiring
from forebay.pki.certificates import names, read_certificate
from forebay.rpc import ServiceTokens
from forebay.signed_commands import CommandKey


@pytest.fixture
def wiring(place: Path) -> Iterator[Wiring]:
    with open_data_directory(place) as data:
        front = open_front(
            data, listen="10.87.0.1", tls_cert=None, tls_key=None, plain_http=False, now=datetime.now(UTC)
        )
        nats = Nats(
            "tls://10.87.0.1:8100", data.root / "ca.pem", data.nats / "agents.conf", data.secrets, cast(Any, None)
        )
        yield Wiring(Layout(8090, 2), data, keep_service_secrets(data.secrets), front, nats, True, "laptop")


def told(service: str, environ: dict[str, str]) -> Any:
    """The settings that the service reads from these variables and nothing else."""
    (loaded,) = load_services([service])
    return read_settings(loaded.settings, service, file={}, environ=environ)


def test_every_service_understands_all_that_it_is_told(wiring: Wiring) -> None:
    admin, registry = told("admin", wiring.admin()), told("registry", wiring.registry())
    scheduler, agent = told("scheduler", wiring.scheduler()), told("gpu-agent", wiring.gpu_agent())
    first, second = told("gateway", wiring.gateway("gateway-1")), told("gateway", wiring.gateway("gateway-2"))

    assert first.admin_address == registry.admin_address == admin.listen == "127.0.0.1:8092"
    assert admin.scheduler_address == scheduler.listen == "127.0.0.1:8093"
    assert first.scheduler_address == "127.0.0.1:8093,127.0.0.1:8142", "and the one that leads during an upgrade"
    assert first.registry_address == admin.registry_address == registry.listen == "127.0.0.1:8094"
    assert (first.listen, second.listen, admin.http_listen) == ("10.87.0.1:8090", "10.87.0.1:8110", "10.87.0.1:8091")
    assert first.pepper_file == admin.pepper_file
    assert first.journal_dir != second.journal_dir
    assert first.snapshot_dir != second.snapshot_dir
    assert [s.nats_user or s.name for s in (first, second)] == ["gateway-1", "gateway-2"]
    assert first.workers == 1
    assert told("gateway", replace(wiring, gateway_workers=3).gateway("gateway-1")).workers == 3
    assert agent.bus_user == agent.node == "laptop"
    assert agent.command_key == CommandKey.from_file(registry.command_key_file).public_line
    wiring.secrets.command_key_file.unlink()
    assert told("gpu-agent", wiring.gpu_agent()).command_key == "", "settings are checked before there are secrets"
    assert admin.public_url == "https://10.87.0.1:8091"
    assert admin.public_nats_url == "tls://10.87.0.1:8100"
    assert admin.http_pin.startswith("sha256//")
    assert admin.gateway_addresses == ("https://10.87.0.1:8090", "https://10.87.0.1:8110")
    assert admin.gateway_cert_file == first.tls_cert
    assert (first.admin_http_url, first.admin_http_cert_file) == ("https://10.87.0.1:8091", admin.tls_cert)
    assert first.pages_url == admin.public_url
    assert admin.shown_gateway_url == "https://10.87.0.1:8090"


def test_whoever_calls_a_scheduler_knows_those_that_stand_by_too(wiring: Wiring) -> None:
    several = replace(wiring, layout=Layout(8090, 2, 2))
    first, second = told("scheduler", several.scheduler()), told("scheduler", several.scheduler("scheduler-2"))
    assert (first.listen, second.listen) == ("127.0.0.1:8093", "127.0.0.1:8103")
    assert first.snapshot_dir != second.snapshot_dir
    assert told("admin", several.admin()).scheduler_address == "127.0.0.1:8093,127.0.0.1:8103"
    caller = told("gateway", several.gateway("gateway-1"))
    assert caller.scheduler_address == "127.0.0.1:8093,127.0.0.1:8103,127.0.0.1:8142"


def test_whoever_calls_a_registry_knows_the_one_that_stands_by_too(wiring: Wiring) -> None:
    several = replace(wiring, layout=Layout(8090, 2, 2, 2))
    first, second = told("registry", several.registry()), told("registry", several.registry("registry-2"))
    assert (first.listen, second.listen) == ("127.0.0.1:8094", "127.0.0.1:8140")
    assert first.ops_listen != second.ops_listen
    assert first.snapshot_dir != second.snapshot_dir
    callers = (
        told("gateway", several.gateway("gateway-1")),
        told("scheduler", several.scheduler()),
        told("admin", several.admin()),
    )
    assert {caller.registry_address for caller in callers} == {"127.0.0.1:8094,127.0.0.1:8140"}


def test_no_two_parts_of_the_largest_installation_share_a_port() -> None:
    layout = Layout(8090, 16, 4, 2)
    ports = [port for _, port in (*layout.open_ports(), *layout.inner_ports())]
    ports += [layout.nats, layout.postgres, layout.engine, layout.scheduler_beside]
    assert len(set(ports)) == len(ports) == 2 * 16 + 2 * 4 + 2 * 2 + 2 + 2 + 4


def test_no_two_parts_share_a_port_or_a_seed(wiring: Wiring) -> None:
    layout = wiring.layout
    ports = [port for _, port in (*layout.open_ports(), *layout.inner_ports())]
    ports += [layout.nats, layout.postgres, layout.engine]
    assert len(ports) == len(set(ports))
    environs = [wiring.admin(), wiring.registry(), wiring.scheduler(), wiring.gpu_agent()]
    environs += [wiring.gateway(name) for name in layout.gateways]
    seeds = [value for environ in environs for name, value in environ.items() if name.endswith("_NATS_SEED_FILE")]
    assert len(seeds) == len(set(seeds)) == 6


def test_servers_of_ones_own_are_left_to_their_usual_variables(wiring: Wiring) -> None:
    given = replace(wiring, nats=None, has_own_database=False)
    for environ in (given.admin(), given.registry(), given.gateway("gateway-1"), given.gpu_agent()):
        assert not [name for name in environ if "NATS" in name or "DATABASE" in name]
    assert told("admin", {**given.admin(), "DATABASE_URL": "postgresql://x@y/z"}).database_url == "postgresql://x@y/z"


def test_tokens_stay_the_same_and_are_the_owners_alone(wiring: Wiring) -> None:
    secrets = wiring.secrets
    before = {caller: secrets.token_file(caller).read_text() for caller in CALLERS}
    keep_service_secrets(secrets.folder)
    assert {caller: secrets.token_file(caller).read_text() for caller in CALLERS} == before
    assert len(set(before.values())) == len(CALLERS)
    files = [file for file in secrets.folder.rglob("*") if file.is_file()]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    authorize = ServiceTokens(secrets.callers_file, {"/S/*": frozenset({"admin"})})
    assert authorize("/S/Method", before["admin"].strip()) == "admin"


def test_with_mtls_every_part_shows_a_certificate_of_its_own_name_to_peers_and_bus(wiring: Wiring) -> None:
    wiring = replace(wiring, mtls=open_mtls(wiring.data, wiring.layout, wiring.front, datetime.now(UTC)))
    admin = told("admin", wiring.admin())
    parts = {
        "admin": admin,
        "registry": told("registry", wiring.registry()),
        "scheduler": told("scheduler", wiring.scheduler()),
        "gateway-1": told("gateway", wiring.gateway("gateway-1")),
        "gateway-2": told("gateway", wiring.gateway("gateway-2")),
    }
    for name, settings in parts.items():
        assert settings.internal_tls is not None
        assert settings.internal_tls.cert == wiring.data.secrets / "pki" / name / "tls.crt"
        assert (settings.nats_cert_file, settings.nats_key_file) == (
            settings.internal_cert_file,
            settings.internal_key_file,
        )
        assert settings.internal_tls.key.exists()
    agent = told("gpu-agent", wiring.gpu_agent())
    assert agent.nats_cert_file == wiring.data.secrets / "pki" / "gpu-agent" / "tls.crt"
    assert admin.operators_listen == "127.0.0.1:8109"


def test_without_mtls_nobody_is_told_of_certificates(wiring: Wiring) -> None:
    admin = told("admin", wiring.admin())
    assert (admin.internal_tls, admin.nats_cert_file, admin.operators_listen) == (None, None, None)


def test_nats_is_known_by_the_names_that_other_machines_reach_it_by(wiring: Wiring) -> None:
    mtls = open_mtls(wiring.data, wiring.layout, wiring.front, datetime.now(UTC))
    certificate = read_certificate(mtls.nats.certificate.read_bytes())
    assert {"10.87.0.1", "127.0.0.1", "localhost"} <= set(names(certificate))
    again = open_mtls(wiring.data, wiring.layout, wiring.front, datetime.now(UTC))
    assert read_certificate(again.nats.certificate.read_bytes()) == certificate
    later = open_mtls(wiring.data, wiring.layout, wiring.front, datetime.now(UTC) + timedelta(days=300))
    assert read_certificate(later.nats.certificate.read_bytes()) != certificate
