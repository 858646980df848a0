"""The way to admin's HTTP port, for what is passed on to it. Whose request it is, admin is told with a proof."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from yarl import URL

from forebay.clock import Clock
from forebay.errors import BadInput, CannotStart, Unavailable
from forebay.forwarded import HEADER, Forwards
from forebay.internal_tls import Authorities
from forebay_gateway.config import GatewaySettings

_LONGEST_S = 120.0
"""For all of an answer. Admin takes half a minute at most to make one."""
_SILENT_S = 60.0
_AT_ONCE = 64


class AdminHttp:
    """Use `open_admin_http`."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        authorities: Authorities | None,
        cert_file: Path | None,
        forwards: Forwards,
        clock: Clock,
    ) -> None:
        """`url`: without a slash at its end; empty where there is none."""
        self._session = session
        self._url = url
        self._authorities = authorities
        self._cert_file = cert_file
        self._forwards = forwards
        self._clock = clock
        self._pinned: tuple[bytes, aiohttp.Fingerprint] | None = None

    @asynccontextmanager
    async def asked(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, address: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """`target`: path and query, encoded. `address`: the client's. Raises BadInput, Unavailable."""
        if not self._url:
            raise Unavailable(
                "Admin's HTTP address is not told to this gateway: set admin_http_url, or ask admin itself."
            )
        told = {**headers, HEADER: self._forwards.tell(address, method, target, self._clock.now())}
        url = URL(self._url + target, encoded=True)
        away = Unavailable("Admin cannot be reached; it usually returns within seconds.", retry_after_s=2.0)
        try:
            trust = self._trust()
        except (OSError, ValueError) as error:
            raise away from error
        try:
            answering = await self._session.request(
                method, url, headers=told, data=body or None, ssl=trust, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError) as error:
            raise away from error
        except ValueError as error:
            raise BadInput("The key or the address of this request has characters that none has.") from error
        async with answering:
            yield answering

    def _trust(self) -> ssl.SSLContext | aiohttp.Fingerprint | bool:
        if self._cert_file is not None:
            # Read each time: it may have been renewed. While it is the same, so is the pin, by which connections are kept.
            held = self._cert_file.read_bytes()
            if self._pinned is None or self._pinned[0] != held:
                certificate = x509.load_pem_x509_certificate(held)
                self._pinned = held, aiohttp.Fingerprint(certificate.fingerprint(SHA256()))
            return self._pinned[1]
        return self._authorities.context() if self._authorities is not None else True


@asynccontextmanager
async def open_admin_http(settings: GatewaySettings, forwards: Forwards, clock: Clock) -> AsyncIterator[AdminHttp]:
    """Raises CannotStart."""
    ca_file = settings.admin_http_ca_file
    try:
        authorities = Authorities(ca_file) if ca_file is not None else None
    except CannotStart as error:
        raise CannotStart(f"admin_http_ca_file {ca_file} cannot be used. {error.message}") from error
    timeout = aiohttp.ClientTimeout(total=_LONGEST_S, sock_connect=settings.connect_s, sock_read=_SILENT_S)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=_AT_ONCE),
        timeout=timeout,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("user-agent", "accept-encoding", "content-type"),
        trust_env=False,
    ) as session:
        url = settings.admin_http_url.rstrip("/")
        yield AdminHttp(session, url, authorities, settings.admin_http_cert_file, forwards, clock)
