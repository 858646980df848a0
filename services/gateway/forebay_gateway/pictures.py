"""Pictures that a request names by their address: fetched here and sent on in the request itself.

Many engines cannot fetch, and none should: whoever may ask a question could otherwise read what only the engines' network
reaches. So every address that a name leads to must be a public one, at every redirect too."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from forebay_gateway.refused import BadField

MOST_PICTURES = 16
_MOST_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
_PIECE = 64 << 10


@dataclass(frozen=True, slots=True)
class _Place:
    param: str
    holder: dict[str, Any]
    name: str
    """Of the field that has the address."""


def names_pictures(fields: Mapping[str, Any]) -> bool:
    """Whether a chat has some that are not in it."""
    return next(_named(fields), None) is not None


class Pictures:
    """Use `open_pictures`."""

    def __init__(self, session: aiohttp.ClientSession, trusted_hosts: frozenset[str], most_bytes: int) -> None:
        self._session, self._trusted_hosts, self._most_bytes = session, trusted_hosts, most_bytes

    async def put_into(self, fields: Mapping[str, Any], within_s: float) -> int:
        """Puts each picture that a chat names by its address into the chat. Gives the bytes that it grew by. Raises
        BadField."""
        places = list(_named(fields))
        if len(places) > MOST_PICTURES:
            raise BadField(
                f"{len(places)} pictures are named by address; {MOST_PICTURES} are fetched for one request. Send the "
                "others as data: URLs.",
                param=places[MOST_PICTURES].param,
                code="invalid_value",
            )
        grown = 0
        for place in places:
            try:
                async with asyncio.timeout(within_s):
                    url = await self._fetched(place)
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                raise _unfetched(place.param, f"no answer came ({type(error).__name__})") from error
            place.holder[place.name] = url
            grown += len(url)
        return grown

    async def _fetched(self, place: _Place) -> str:
        url = URL(place.holder[place.name])
        for _ in range(_MOST_REDIRECTS + 1):
            self._demand_public(url, place.param)
            async with self._session.get(url, allow_redirects=False) as answer:
                if answer.status in _REDIRECTS:
                    url = url.join(URL(answer.headers.get("location", "")))
                    continue
                if answer.status != 200:
                    raise _unfetched(place.param, f"the answer was {answer.status}")
                if not answer.content_type.startswith("image/"):
                    raise _unfetched(place.param, f"it is {answer.content_type[:80]}, not a picture")
                content = await self._read(answer, place.param)
                encoded = await asyncio.to_thread(base64.b64encode, content)
                return f"data:{answer.content_type};base64,{encoded.decode()}"
        raise _unfetched(place.param, "it leads on and on")

    async def _read(self, answer: aiohttp.ClientResponse, param: str) -> bytes:
        content = bytearray()
        while piece := await answer.content.read(_PIECE):
            content += piece
            if len(content) > self._most_bytes:
                raise _unfetched(param, f"it is larger than {self._most_bytes} bytes")
        return bytes(content)

    def _demand_public(self, url: URL, param: str) -> None:
        """Of an address that is a number; names are looked at when they are resolved."""
        if url.scheme not in ("http", "https") or not url.host:
            raise _unfetched(param, "only http and https are fetched")
        if url.host in self._trusted_hosts:
            return
        try:
            address = ipaddress.ip_address(url.host)
        except ValueError:
            return
        if not is_public(address):
            raise _unfetched(param, "its address is not a public one")


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
async def open_pictures(trusted_hosts: str, most_bytes: int) -> AsyncIterator[Pictures]:
    """`trusted_hosts`: names with commas between them, fetched from whatever their addresses are."""
    trusted = frozenset(host.strip() for host in trusted_hosts.split(",") if host.strip())
    connector = aiohttp.TCPConnector(resolver=_PublicResolver(trusted), limit=64, use_dns_cache=False)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, max_field_size=16 << 10
    ) as session:
        yield Pictures(session, trusted, most_bytes)


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


def _named(fields: Mapping[str, Any]) -> Iterator[_Place]:
    messages = fields.get("messages")
    for number, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        for place, part in enumerate(content if isinstance(content, list) else ()):
            told = part.get("image_url") if isinstance(part, dict) else None
            where = f"messages[{number}].content[{place}].image_url"
            if isinstance(told, str) and _is_address(told):
                yield _Place(where, part, "image_url")
            elif isinstance(told, dict) and _is_address(told.get("url")):
                yield _Place(f"{where}.url", told, "url")


def _is_address(told: Any) -> bool:
    return isinstance(told, str) and told[:4].lower() == "http"


def _unfetched(param: str, why: str) -> BadField:
    return BadField(
        f"The picture at `{param}` cannot be fetched: {why}. Send it as a data: URL.",
        param=param,
        code="invalid_image_url",
    )
