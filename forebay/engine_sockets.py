"""Connections to engines, and to nothing that no engine is: an address is looked at when it is about to be connected to, so
that a name which resolves to another one by then helps nobody."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from forebay.engine_addresses import address_refusal

AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]
"""As `socket.getaddrinfo` gives it."""


class RefusedAddress(OSError):
    """This address is not connected to."""


def socket_factory(*, allow_link_local: bool) -> Callable[[AddressInfo], socket.socket]:
    """For `aiohttp.TCPConnector` and `aiohappyeyeballs.start_connection`."""

    def open_socket(info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        if not allow_link_local and (why := address_refusal(str(address[0]))) is not None:
            raise RefusedAddress(why)
        return socket.socket(family, kind, protocol)

    return open_socket
