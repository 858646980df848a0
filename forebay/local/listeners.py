"""The addresses of gateways, held by `forebay up` itself: a gateway that is replaced, or dies, takes no connection along
that it has not taken yet, and nobody is refused meanwhile."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from forebay.errors import CannotStart

BACKLOG = 4096


@contextmanager
def open_listener(host: str, port: int) -> Iterator[socket.socket]:
    """Raises CannotStart."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_open(host, port, error) from error
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except OSError as error:
            raise _cannot_open(host, port, error) from error
        yield listener


def _cannot_open(host: str, port: int, error: OSError) -> CannotStart:
    why = error.strerror or str(error)
    return CannotStart(f"The gateway's port {port} on {host} cannot be opened ({why}); is another Forebay running?")
