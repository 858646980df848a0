"""What requests name by its address on the web, fetched for them.

Many engines cannot fetch, and none should: whoever may ask a question could otherwise read what only the engines' network
reaches. So every address that a name leads to must be a public one, at every redirect too. Servers may be as slow as they
like: each user has few fetches at once, and each request so much time for all of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from yarl import URL

from forebay_gateway.public_addresses import PublicResolver, address_in, is_public

_MOST_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
_PIECE = 64 << 10
_WITHIN_S = 20.0
"""For all that one request names."""
_MOST_PER_USER = 4
"""Fetches at once."""
_MOST_CONNECTIONS = 512


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
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._at_it: Counter[str] = Counter()
        """Fetches of each user, those that wait included."""

    def fetches_for(self, user_id: str, begin: Callable[[], None]) -> Fetches:
        """Those of one request. `begin` is called before the first of them, and may raise Refused."""
        return Fetches(self, user_id, begin)

    @asynccontextmanager
    async def turn_of(self, user_id: str) -> AsyncIterator[None]:
        turns = self._turns.setdefault(user_id, asyncio.Semaphore(_MOST_PER_USER))
        self._at_it[user_id] += 1
        try:
            async with turns:
                yield
        finally:
            self._at_it[user_id] -= 1
            if not self._at_it[user_id]:
                del self._at_it[user_id], self._turns[user_id]

    async def fetch(self, address: str, most_bytes: int, hold: Callable[[int], None], of_type: str) -> Fetched:
        """Raises as `Fetches.fetch` does, but waits as long as it takes."""
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
                return Fetched(answer.content_type, await _read(answer, most_bytes, hold))
        raise NotFetched("it leads on and on")

    def _demand_public(self, url: URL) -> None:
        """Of an address that is a number; names are looked at when they are resolved."""
        if url.scheme not in ("http", "https") or not url.raw_host:
            raise NotFetched("only http and https are fetched")
        if url.host in self._trusted_hosts:
            return
        try:
            address = address_in(url.raw_host)
        except ValueError as error:
            raise NotFetched("its address is a number in an unusual spelling") from error
        if address is not None and not is_public(address):
            raise NotFetched("its address is not a public one")


class Fetches:
    """What one request has fetched for it, one thing after the other."""

    def __init__(self, web: PublicWeb, user_id: str, begin: Callable[[], None]) -> None:
        self._web, self._user_id, self._begin = web, user_id, begin
        self._left_s = _WITHIN_S
        self._has_begun = False

    async def fetch(self, address: str, most_bytes: int, hold: Callable[[int], None], of_type: str = "") -> Fetched:
        """`hold` takes bytes from the budget as they arrive; `of_type`: how its media type must begin; of anything else only
        the head is read. Raises NotFetched, what `hold` raises, or, where no answer comes, ClientError, OSError,
        TimeoutError or ValueError."""
        if not self._has_begun:
            self._begin()
            self._has_begun = True
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(self._left_s), self._web.turn_of(self._user_id):
                return await self._web.fetch(address, most_bytes, hold, of_type)
        finally:
            self._left_s -= clock() - began


@asynccontextmanager
async def open_public_web(trusted_hosts: str) -> AsyncIterator[PublicWeb]:
    """`trusted_hosts`: names with commas between them, fetched from whatever their addresses are."""
    trusted = frozenset(host.strip() for host in trusted_hosts.split(",") if host.strip())
    resolver = PublicResolver(trusted)
    connector = aiohttp.TCPConnector(resolver=resolver, limit=_MOST_CONNECTIONS, use_dns_cache=False)
    try:
        async with aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, max_field_size=16 << 10
        ) as session:
            yield PublicWeb(session, trusted)
    finally:
        await resolver.close()


async def _read(answer: aiohttp.ClientResponse, most_bytes: int, hold: Callable[[int], None]) -> bytes:
    content = bytearray()
    while piece := await answer.content.read(_PIECE):
        if len(content) + len(piece) > most_bytes:
            raise NotFetched(f"it is larger than {most_bytes} bytes")
        hold(len(piece))
        content += piece
    return bytes(content)
