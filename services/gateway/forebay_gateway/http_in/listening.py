"""The port for clients: opened here, and served by whatever protocol a connection is to have."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from forebay.config import parse_address
from forebay.errors import CannotStart
from forebay_gateway.config import GatewaySettings

BACKLOG = 4096


def open_listener(settings: GatewaySettings) -> socket.socket:
    """Bound, and listening; the inherited one if there is one. Blocks for as long as a name takes to be resolved. Raises
    CannotStart."""
    if settings.listen_descriptor:
        return _inherited(settings.listen_descriptor)
    host, port = parse_address(settings.listen)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_open(settings, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _cannot_open(settings, error) from error
    return listener


def _inherited(descriptor: int) -> socket.socket:
    """A copy, which can be closed without closing it for others."""
    try:
        listener = socket.socket(fileno=os.dup(descriptor))
        is_listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise CannotStart(
            f"[gateway] listen_descriptor: {descriptor} is no socket that this process was given ({error.strerror})."
        ) from error
    if not is_listening:
        listener.close()
        raise CannotStart(f"[gateway] listen_descriptor: the socket {descriptor} does not listen.")
    listener.setblocking(False)
    return listener


@asynccontextmanager
async def serve_on(
    listener: socket.socket, make_protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None
) -> AsyncIterator[None]:
    """Until left, connections are accepted; those that are open then stay so. Closes `listener`."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(make_protocol, sock=listener, ssl=tls, backlog=BACKLOG)
    try:
        yield
    finally:
        server.close()


def _cannot_open(settings: GatewaySettings, error: OSError) -> CannotStart:
    why = error.strerror or str(error)
    return CannotStart(f"The gateway's port {settings.listen} cannot be opened ({why}); is another Forebay running?")
