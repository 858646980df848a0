"""How a connection to an engine is made: its name is looked up, its addresses are tried, and TLS is spoken where it is asked
for. What no engine has is not connected to, whatever a name leads to by then."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import TypeVar

from aiohappyeyeballs import start_connection

from forebay.engine_sockets import AddressInfo, socket_factory
from forebay_gateway.http_out.failures import Unresolved
from forebay_gateway.http_out.request import Address

_KNOWN_S = 5.0
"""So long what a name led to is believed."""
_STAGGER_S = 0.25  # RFC 8305
_MOST_KNOWN = 1024

P = TypeVar("P", bound=asyncio.BaseProtocol)


class Dialer:
    def __init__(self, connect_s: float, *, allow_link_local: bool) -> None:
        self._connect_s = connect_s
        self._open_socket = socket_factory(allow_link_local=allow_link_local)
        self._loop = asyncio.get_running_loop()
        self._known: dict[Address, tuple[float, Sequence[AddressInfo]]] = {}
        self._looking: dict[Address, asyncio.Task[Sequence[AddressInfo]]] = {}
        self._tls: ssl.SSLContext | None = None

    async def dial(self, address: Address, make: Callable[[], P]) -> P:
        """Raises OSError; TimeoutError when looking up, connecting and TLS together take too long."""
        async with asyncio.timeout(self._connect_s):
            found = await self._look_up(address)
            try:
                sock = await start_connection(
                    found, happy_eyeballs_delay=_STAGGER_S, interleave=1, socket_factory=self._open_socket
                )
            except (OSError, RuntimeError) as error:
                self._known.pop(address, None)  # the engine may have moved
                if isinstance(error, OSError):
                    raise
                raise OSError(str(error)) from error  # uvloop's
            return await self._speak(address, sock, make)

    async def _speak(self, address: Address, sock: socket.socket, make: Callable[[], P]) -> P:
        try:
            if address.is_tls:
                name = address.host.rstrip(".")
                _, protocol = await self._loop.create_connection(
                    make, sock=sock, ssl=self._tls_context(), server_hostname=name
                )
            else:
                _, protocol = await self._loop.create_connection(make, sock=sock)
        except BaseException:
            sock.close()
            raise
        return protocol

    async def _look_up(self, address: Address) -> Sequence[AddressInfo]:
        if _is_numeric(address.host):
            flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            return socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=flags)
        now = self._loop.time()
        until, found = self._known.get(address, (0.0, ()))
        if now < until:
            return found
        looking = self._looking.get(address)
        if looking is None:
            looking = self._looking[address] = self._loop.create_task(self._resolve(address), name="look up an engine")
            looking.add_done_callback(lambda task: self._note(address, task))
        return await asyncio.shield(looking)  # others may wait for it

    async def _resolve(self, address: Address) -> Sequence[AddressInfo]:
        try:
            found = await self._loop.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )
        except (OSError, UnicodeError) as error:
            raise Unresolved(str(error)) from error
        if not found:
            raise Unresolved("It has no address.")
        return found

    def _note(self, address: Address, task: asyncio.Task[Sequence[AddressInfo]]) -> None:
        del self._looking[address]
        if not task.cancelled() and task.exception() is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[address] = (self._loop.time() + _KNOWN_S, task.result())

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
