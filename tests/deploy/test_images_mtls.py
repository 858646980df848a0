"""The compose file with mtls.yaml over it, for real: up and answering, every connection under a certificate, and nobody
served who has none."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy import containers
from tests.deploy.containers import Stack, chat, make_secrets, podman, wait_until

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1800)]
_WHY_NOT = containers.missing()
if _WHY_NOT:
    pytestmark.append(pytest.mark.skip(reason=_WHY_NOT))

NATS = ("nats-1", "nats-2", "nats-3")
OURS = ("admin", "registry", "scheduler-1", "scheduler-2", "gateway-1")
FOR_CLIENTS = ("gateway-1:8090", "admin:8091", "admin:8092")
"""Ports of people and their programs, who have keys and no certificates."""


@pytest.fixture(scope="module")
def stack(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    services = ("postgres", *NATS, *OURS, "demo")
    with containers.deployed(image, tmp_path_factory.mktemp("mtls"), services=services, mtls=True) as stack:
        yield stack


@pytest.fixture(scope="module")
def key(stack: Stack) -> str:
    return stack.key


def test_it_answers_over_tls_and_its_rows_are_in_the_ledger(stack: Stack, key: str) -> None:
    status, text = stack.ask("/v1/chat/completions", key, chat())
    assert status == 200, text
    assert json.loads(text)["usage"]["completion_tokens"] > 0
    assert stack.ask("/v1/chat/completions", "fb-none-at-all", chat())[0] == 401
    wait_until(lambda: _rows(stack) >= 1, 60, lambda: stack.tell(["admin"]))


def _rows(stack: Stack) -> int:
    return sum(int(row["requests"]) for row in json.loads(stack.operate("usage", "--json")))


def test_nobody_is_served_without_tls_and_none_but_clients_without_a_certificate(stack: Stack) -> None:
    code = (Path(__file__).parent / "peers.py").read_text()
    told = json.loads(stack.run_inside("admin", "/opt/forebay/bin/python", "-c", code, "/etc/forebay/pki"))
    assert len(told) == 14, told
    for port, found in told.items():
        assert found["own certificate"] == "served", (port, found)
        assert found["plain"].startswith("not served"), (port, found)
        assert (found["no certificate"] == "served") == (port in FOR_CLIENTS), (port, found)


def test_every_connection_to_postgresql_and_nats_is_one_with_a_certificate(stack: Stack) -> None:
    query = (
        "SELECT DISTINCT usename || ' ' || coalesce(client_dn, 'none') FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) "
        "WHERE usename <> 'postgres'"
    )
    command = 'PGPASSWORD=$(cat /run/secrets/password) psql -XAtq -h 127.0.0.1 -U postgres -c "$1"'
    sessions = stack.run_inside("postgres", "sh", "-c", command, "psql", query).splitlines()
    assert {one.partition(" ")[0] for one in sessions} == {"forebay_admin", "forebay_registry"}
    for session in sessions:
        assert f"CN={session.partition(' ')[0].removeprefix('forebay_')}" in session, sessions
    told = [_monitoring(stack, server, "connz")["connections"] for server in NATS]
    connections = [one for server in told for one in server]
    assert len(connections) >= len(OURS)
    assert all(one.get("tls_version") for one in connections), connections


def _monitoring(stack: Stack, server: str, page: str) -> dict[str, list[dict[str, object]]]:
    code = f"import urllib.request as r; print(r.urlopen('http://{server}:8222/{page}').read().decode())"
    found: dict[str, list[dict[str, object]]] = json.loads(
        stack.run_inside("admin", "/opt/forebay/bin/python", "-c", code)
    )
    return found


def test_new_certificates_are_taken_up_without_a_restart(stack: Stack, key: str) -> None:
    before, processes = _served(stack), {name: stack.process(name) for name in (*OURS, *NATS)}
    podman(
        *("run", "--rm", "--user", "0:0", "--no-healthcheck", "--volume", f"{stack.folder}/secrets:/secrets"),
        *(f"{containers.OURS}/admin:{containers.VERSION}", "pki", "renew", "/secrets/pki", "--all"),
    )
    make_secrets(stack.folder, "--mtls")  # gives them to who reads them
    wait_until(lambda: not before & _served(stack), 60, lambda: stack.tell(["admin", "gateway-1"]))
    wait_until(lambda: all("Reloaded: tls" in stack.log(server) for server in NATS), 60)
    wait_until(lambda: stack.ask("/v1/chat/completions", key, chat())[0] == 200, 60, lambda: stack.tell(OURS))
    rows = _rows(stack)
    assert stack.ask("/v1/chat/completions", key, chat())[0] == 200
    wait_until(lambda: _rows(stack) > rows, 60, lambda: stack.tell(["admin"]))
    assert {name: stack.process(name) for name in processes} == processes


def _served(stack: Stack) -> set[str]:
    """The certificates that clients are shown."""
    return {
        ssl.get_server_certificate(("127.0.0.1", stack.ports[port]))
        for port in ("GATEWAY_PORT", "PAGES_PORT", "CALLS_PORT")
    }
