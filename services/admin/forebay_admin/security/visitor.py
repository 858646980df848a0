"""Where a request to admin's HTTP port comes from: written down once, when it comes in, and read by whoever asks."""

from __future__ import annotations

from aiohttp import web

from forebay.client_addresses import TrustedProxies, client_address
from forebay.forwarded import Forwards

_ADDRESS = web.RequestKey("visitor_address", str)


def visitor_address(request: web.BaseRequest) -> str:
    """An address without a port; empty where there is none."""
    return str(request.get(_ADDRESS, request.remote or ""))


def note_visitor(request: web.BaseRequest, proxies: TrustedProxies, forwards: Forwards, now: float) -> str:
    """The other end of the connection, or what a proxy that is trusted says, or a gateway that passes the request on."""
    address = forwards.read(request.headers, request.method, request.raw_path, now)
    if address is None:
        lines = request.headers.getall(proxies.header, ()) if proxies.networks else ()
        address = client_address(request.remote or "", lines, proxies)
    request[_ADDRESS] = address
    return address
