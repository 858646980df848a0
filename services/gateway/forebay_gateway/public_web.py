"""What requests name by its address on the web, fetched for them.

Many engines cannot fetch, and none should: whoever may ask a question could otherwise read what only the engines' network
reaches. So every address that a name leads to must be a public one, at every redirect too."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

_MOST_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
_PIECE = 64 << 10


class NotFetched(Exception):
    """Its message says why, and fits behind a colon."""


@dataclass(frozen=True, slots=True)
class Fetched:
    media_type: str
    content: bytes


class PublicWeb:
    """Use `open_public_web`."""

    def __init__(self, session: aiohttp.ClientSession, trusted_hosts: frozenset[str]) -> None:
        self._session, self._trusted_hosts = session, trusted_hosts

    async def fetch(self, address: str, most_bytes: int, of_type: str = "") -> Fetched:
        """`of_type`: how its media type must begin; of anything else only the head is read. Raises NotFetched, or, where no
        answer comes, ClientError, OSError or ValueError; wait no longer than you like."""
        url = URL(address)
        for _ in range(_MOST_REDIRECTS + 1):
            self._demand_public(url)
            async with self._session.get(url, allow_redirects=False) as answer:
                if answer.status in _REDIRECTS:
                    url = url.join(URL(answer.headers.get("location", "")))
                    continue
                if answer.status != 200:
                    raise NotFetched(f"the answer was {answer.status}")
                if not answer.content_type.startswith(of_type):
                    raise NotFetched(f"it is {answer.content_type[:80]}, not {of_type}…")
                return Fetched(answer.content_type, await _read(answer, most_bytes))
        raise NotFetched("it leads on and on")

    def _demand_public(self, url: URL) -> None:
        """Of an address that is a number; names are looked at when they are resolved."""
        if url.scheme not in ("http", "https") or not url.host:
            raise NotFetched("only http and https are fetched")
        if url.host in self._trusted_hosts:
            return
        try:
            address = ipaddress.ip_address(url.host)
        except ValueError:
            return
        if not is_public(address):
            raise NotFetched("its address is not a public one")


class _PublicResolver(AbstractResolver):
    """Names, but for trusted ones, must lead to public addresses alone."""

    def __init__(self, trusted_hosts: frozenset[str]) -> None:
        self._trusted_hosts = trusted_hosts
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if host not in self._trusted_hosts and not all(is_public(ipaddress.ip_address(f["host"])) for f in found):
            raise OSError("the name leads to an address that is not public")
        return found

    async def close(self) -> None:
        await self._resolver.close()


@asynccontextmanager
async def open_public_web(trusted_hosts: str) -> AsyncIterator[PublicWeb]:
    """`trusted_hosts`: names with commas between them, fetched from whatever their addresses are."""
    trusted = frozenset(host.strip() for host in trusted_hosts.split(",") if host.strip())
    connector = aiohttp.TCPConnector(resolver=_PublicResolver(trusted), limit=64, use_dns_cache=False)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, max_field_size=16 << 10
    ) as session:
        yield PublicWeb(session, trusted)


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether anybody on the internet may ask it. IPv6 has several ways of writing an IPv4 address."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


_NAT64 = ipaddress.ip_network("64:ff9b::/96")


async def _read(answer: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    content = bytearray()
    while piece := await answer.content.read(_PIECE):
        content += piece
        if len(content) > most_bytes:
            raise NotFetched(f"it is larger than {most_bytes} bytes")
    return bytes(content)
