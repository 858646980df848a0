"""What is remembered of a connection's head, which clients send again and again, and for how long."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from forebay.client_addresses import TrustedProxies
from forebay_gateway.callers.call import Call
from forebay_gateway.callers.virtual_endpoints import VirtualEndpoint, VirtualEndpoints
from forebay_gateway.canonical.dialect import Dialect
from forebay_gateway.cors import Origins
from forebay_gateway.hot_routes import HotRoutes
from forebay_gateway.http_in.framer import Head, read_head
from forebay_gateway.route import Route

pytestmark = pytest.mark.interpreted

ROUTE = Route("/v1/chat/completions", cast(Dialect, None))


class Hot:
    def __init__(self, *endpoints: VirtualEndpoint) -> None:
        self.endpoints = VirtualEndpoints(endpoints)
        settings = SimpleNamespace(proxies=TrustedProxies())
        means = cast(Any, SimpleNamespace(endpoints=self.endpoints, settings=settings))
        self._routes = HotRoutes(means, Origins([]), [ROUTE])
        self._before: Any = None

    def call(self, head: Head) -> Call | None:
        """Of one more request with this head on the same connection; None: it is aiohttp's."""
        self._before = self._routes.find(head, "10.0.0.1", self._before)
        return self._before.call if self._before is not None else None


def head(path: str, more: str = "") -> Head:
    read = read_head(f"POST {path} HTTP/1.1\r\nhost: x\r\n{more}content-length: 0\r\n\r\n".encode())
    assert isinstance(read, Head)
    return read


def test_a_head_that_comes_again_is_another_request_of_the_same_caller() -> None:
    hot, said = Hot(), head("/v1/chat/completions", "authorization: Bearer one\r\nx-session-id: s\r\n")
    calls = [call for _ in range(3) if (call := hot.call(said)) is not None]
    assert len({call.request_id for call in calls}) == 3
    assert len({(call.key, call.session_key, call.path, call.address) for call in calls}) == 1


def test_an_id_that_a_client_named_stays_and_one_that_cannot_be_one_is_made_anew() -> None:
    hot, said = Hot(), head("/v1/chat/completions", "x-request-id: mine\r\n")
    assert [call.request_id for _ in range(3) if (call := hot.call(said)) is not None] == ["mine"] * 3
    hot, said = Hot(), head("/v1/chat/completions", "x-request-id: not mine\r\n")
    assert len({call.request_id for _ in range(3) if (call := hot.call(said)) is not None}) == 3


def test_a_head_is_understood_anew_once_the_endpoints_have_changed() -> None:
    hot, said = Hot(VirtualEndpoint("a", path_prefix="/team")), head("/team/v1/chat/completions")
    assert [call.pool for _ in range(2) if (call := hot.call(said)) is not None] == ["a", "a"]
    hot.endpoints.replace_all([VirtualEndpoint("b", path_prefix="/team")])
    assert [call.pool for _ in range(2) if (call := hot.call(said)) is not None] == ["b", "b"]
    hot.endpoints.replace_all([])
    assert hot.call(said) is None
