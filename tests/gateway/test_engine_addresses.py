"""Addresses that no engine has: what an engine's name leads to is looked at as the gateway connects."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from forebay.clock import SystemClock
from forebay_gateway.engine_answer import TroubledEngine
from forebay_gateway.fleet import Backend
from forebay_gateway.keyring import Keyring
from forebay_gateway.upstream import open_upstream

_TO_SECRETS = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("169.254.169.254", 8000))]


@pytest.mark.parametrize("host", ["innocent.example.com", "169.254.169.254", "[fd00:ec2::254]"])
async def test_an_engine_whose_name_leads_to_a_clouds_secrets_is_not_connected_to(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(*_: Any, **__: Any) -> Any:
        return _TO_SECRETS

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    backend = Backend("b1", "b1", f"http://{host}:8000")
    async with open_upstream(Keyring(lambda _: (), SystemClock()), 5.0) as upstream:
        with pytest.raises(TroubledEngine) as caught:
            await upstream.ask(backend, "/v1/models", None, request_id="r", within_s=30.0)
    assert str(caught.value) == "No answer came: its name leads to an address that no engine has"
