"""The settings of certificates, the same in every service: whole or not there, and told with all other problems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forebay.config import read_settings
from forebay.errors import BadSettings
from forebay.internal_tls import PeerTls
from forebay.launch import load_services

NEEDED = {
    "gateway": ("token_file", "pepper_file", "snapshot_dir", "snapshot_key_file", "journal_dir"),
    "scheduler": ("token_file", "callers_file", "snapshot_dir", "snapshot_key_file"),
    "registry": ("token_file", "callers_file"),
    "admin": ("token_file", "callers_file", "pepper_file", "seal_key_file", "content_dir"),
    "gpu-agent": (),
}
WITH_PORTS = [service for service in NEEDED if service != "gpu-agent"]


def settings(service: str, **given: str) -> Any:
    (loaded,) = load_services([service])
    table = {name: "/somewhere" for name in NEEDED[service]} | given
    return read_settings(loaded.settings, service, file={service: table}, environ={})


@pytest.mark.parametrize("service", WITH_PORTS)
def test_all_three_files_of_a_part_make_mtls_and_none_leave_grpc_plain(service: str) -> None:
    files = {"internal_ca_file": "/ca", "internal_cert_file": "/cert", "internal_key_file": "/key"}
    assert settings(service, **files).internal_tls == PeerTls(Path("/ca"), Path("/cert"), Path("/key"))
    assert settings(service).internal_tls is None


@pytest.mark.parametrize("service", WITH_PORTS)
def test_a_part_of_them_is_a_mistake_that_names_what_is_missing(service: str) -> None:
    with pytest.raises(BadSettings, match="internal_key_file: missing beside the others"):
        settings(service, internal_ca_file="/ca", internal_cert_file="/cert")


@pytest.mark.parametrize("service", list(NEEDED))
def test_a_certificate_for_the_bus_needs_its_key_and_the_bus_authority(service: str) -> None:
    both = {"nats_cert_file": "/cert", "nats_key_file": "/key"}
    assert settings(service, nats_ca_file="/ca", **both).nats_key_file == Path("/key")
    with pytest.raises(BadSettings, match="one is missing; give both or neither"):
        settings(service, nats_ca_file="/ca", nats_cert_file="/cert")
    with pytest.raises(BadSettings, match="it needs nats_ca_file"):
        settings(service, **both)


def test_a_port_for_operators_is_there_only_beside_one_that_asks_for_certificates() -> None:
    with pytest.raises(BadSettings, match="operators_listen: without internal_cert_file"):
        settings("admin", operators_listen="0.0.0.0:8100")
