"""Where a request comes from, as this gateway sees it. The one place that says so."""

from __future__ import annotations

from aiohttp import web

from forebay.client_addresses import TrustedProxies
from forebay.client_addresses import client_address as address_of

_NOTHING_TOLD: tuple[str, ...] = ()


def client_address(request: web.BaseRequest, proxies: TrustedProxies) -> str:
    """The other end of the connection, without its port, or what a proxy that is trusted says; empty where there is none.
    Nobody else's headers count: anybody can write them."""
    lines = request.headers.getall(proxies.header, _NOTHING_TOLD) if proxies.networks else _NOTHING_TOLD
    return address_of(request.remote or "", lines, proxies)
