"""Addresses at which no engine is looked for, however they are written."""

from __future__ import annotations

import socket
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from forebay.clock import SystemClock
from forebay.engine_addresses import refusal
from forebay.engine_sockets import socket_factory
from forebay_registry.engines.outcome import Outcome
from forebay_registry.engines.probe import Failed, Probe, Target


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.170.2",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.254.43518",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "168.63.129.16",
        "metadata.google.internal",
        "METADATA.google.internal.",
        "metadata",
    ],
)
def test_a_metadata_or_link_local_address_is_refused_with_the_setting_that_allows_it(host: str) -> None:
    why = refusal(f"http://{host}:8000/latest")
    assert why is not None
    assert "allow_link_local" in why


@pytest.mark.parametrize(
    "host", ["gpu-1", "10.0.0.5", "127.0.0.1", "[::1]", "169.253.1.1", "metadata.example.com", "[fd00::1]", "8.8.8.8"]
)
def test_other_addresses_are_engines_for_all_we_know(host: str) -> None:
    assert refusal(f"http://{host}:8000") is None


class _ToMetadata(AbstractResolver):
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found: Any = {
            "hostname": host,
            "host": "169.254.169.254",
            "port": port,
            "family": family,
            "proto": 0,
            "flags": 0,
        }
        return [found]

    async def close(self) -> None: ...


@pytest.mark.parametrize("url", ["http://innocent.example.com", "http://169.254.169.254"])
async def test_a_name_that_resolves_there_is_not_connected_to(url: str) -> None:
    connector = aiohttp.TCPConnector(resolver=_ToMetadata(), socket_factory=socket_factory(allow_link_local=False))
    async with aiohttp.ClientSession(connector=connector) as session:
        answer = await Probe(session, SystemClock()).look(Target(url, None))
    assert isinstance(answer, Failed)
    assert answer.outcome is Outcome.UNREACHABLE
    assert "169.254.169.254 is a link-local address" in answer.reason


def test_where_it_is_allowed_any_address_gets_a_socket() -> None:
    info = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("169.254.1.1", 80))
    with socket_factory(allow_link_local=True)(info) as opened:
        assert opened.family == socket.AF_INET
