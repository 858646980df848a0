"""Where a request comes from, as this gateway sees it. The one place that says so."""

from __future__ import annotations

from aiohttp import web


def client_address(request: web.BaseRequest) -> str:
    """The other end of the connection, without its port; empty where there is none. Headers count for nothing: anybody can
    write them."""
    return request.remote or ""
