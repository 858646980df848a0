"""Which addresses anybody on the internet may ask, and names that lead to such alone.

Names are looked up in threads of their own: however slowly a stranger's name server answers, it holds up nothing but
fetching."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_MOST_LOOKUPS = 16
"""At once. One that nobody waits for any more still counts, for as long as its thread is at it."""
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")

_GLOBAL = ipaddress.IPv6Network("2000::/3")
_6TO4 = ipaddress.IPv6Network("2002::/16")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SPECIAL = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.88.99.0/24",  # the relays of 6to4
        "2001::/23",  # protocols, Teredo among them
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
"""Of what Python calls global, or may."""


def is_public(address: Address) -> bool:
    """Whether anybody on the internet may ask it. An IPv6 address that has an IPv4 one in it is judged by that."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address not in _GLOBAL or address.scope_id:
            return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _SPECIAL)


def address_in(host: str) -> Address | None:
    """The address that a URL's host is; None when it is a name. Raises ValueError when it is a number in a spelling that
    readers understand differently, such as 127.1 and 0x7f000001."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
            raise
        return None


class PublicResolver(AbstractResolver):
    """Names, but for trusted ones, must lead to public addresses alone."""

    def __init__(self, trusted_hosts: frozenset[str]) -> None:
        self._trusted_hosts = trusted_hosts
        self._threads = ThreadPoolExecutor(_MOST_LOOKUPS, thread_name_prefix="public-names")
        self._turns = asyncio.Semaphore(_MOST_LOOKUPS)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._look_up(host, port, family)
        if host not in self._trusted_hosts and not all(is_public(ipaddress.ip_address(f["host"])) for f in found):
            raise OSError("the name leads to an address that is not public")
        return found

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _look_up(self, host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
        await self._turns.acquire()  # who gives up here leaves no work behind
        work = asyncio.get_running_loop().run_in_executor(self._threads, _addresses_of, host, port, family)
        work.add_done_callback(self._end_turn)
        return await asyncio.shield(work)

    def _end_turn(self, work: asyncio.Future[list[ResolveResult]]) -> None:
        self._turns.release()
        if not work.cancelled():
            work.exception()  # nobody may be left whom it concerns


def _addresses_of(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    return [
        ResolveResult(
            hostname=host,
            host=str(address[0]),
            port=int(address[1]),
            family=found,
            proto=protocol,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for found, _, protocol, _, address in socket.getaddrinfo(
            host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
    ]
