"""Admin as a client of the gateways: sends one line of a batch and hears the whole answer.

A connection is used for one line. On one that is kept, nobody could tell a line that was sent from one that met its closing,
and a line that may have been sent is not sent again."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from forebay.clock import Clock
from forebay.delegation import SCHEME, Delegations
from forebay.errors import CannotStart
from forebay.internal_tls import Authorities
from forebay_admin.batches.line import Heard, request_id_of

log = logging.getLogger(__name__)

MOST_ANSWER_BYTES = 16 * 1024**2
_SHOWN_BYTES = 1024
"""Of a refusal that is longer than anyone writes."""
_CONNECT_S = 5.0
_BEFORE_SENDING = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ServerFingerprintMismatch)
_LONGEST_S = 2 * 3600.0
"""More than a gateway takes for one request. What has not ended then hangs, and what became of it the ledger says."""


@dataclass(frozen=True, slots=True)
class Unsent:
    """No gateway was reached: nothing of the request has left."""

    why: str


@dataclass(frozen=True, slots=True)
class Unheard:
    """It was sent, and no whole answer came."""

    why: str


@dataclass(frozen=True, slots=True)
class TooLong:
    """It was done, and more came than is kept."""


class Gateways:
    def __init__(
        self,
        session: aiohttp.ClientSession,
        urls: Sequence[str],
        authorities: Authorities | None,
        cert_file: Path | None,
        delegations: Delegations,
        clock: Clock,
    ) -> None:
        """`cert_file`: the gateways' own certificate, which is then the only one that is accepted."""
        self._session = session
        self._urls = list(urls)
        self._authorities = authorities
        self._cert_file = cert_file
        self._delegations = delegations
        self._clock = clock

    async def send(
        self, endpoint: str, body: bytes, key_id: str, ledger_id: bytes
    ) -> Heard | Unsent | Unheard | TooLong:
        """To the gateway whose turn it is; to the next one when it cannot be reached."""
        why = ""
        for _ in self._urls:
            url = self._urls.pop(0)
            self._urls.append(url)
            try:
                trust = self._trust()
            except (OSError, ValueError) as error:
                return Unsent(f"gateway_cert_file {self._cert_file} cannot be used: {error}")
            try:
                return await self._post(url + endpoint, body, key_id, ledger_id, trust)
            except _BEFORE_SENDING as error:
                why = f"{url}: {_said(error)}"
            except (aiohttp.ClientError, TimeoutError) as error:
                return Unheard(_said(error))
        return Unsent(why)

    async def _post(
        self, url: str, body: bytes, key_id: str, ledger_id: bytes, trust: ssl.SSLContext | aiohttp.Fingerprint | bool
    ) -> Heard | TooLong:
        headers = {
            "authorization": f"{SCHEME} {self._delegations.issue(key_id, ledger_id, self._clock.now())}",
            "content-type": "application/json",
            "x-request-id": request_id_of(ledger_id),
        }
        async with self._session.post(url, data=body, headers=headers, ssl=trust, allow_redirects=False) as answer:
            held = bytearray()
            async for piece in answer.content.iter_any():
                held += piece
                if len(held) > MOST_ANSWER_BYTES:
                    if answer.ok:
                        return TooLong()
                    del held[_SHOWN_BYTES:]
                    break
            return Heard(
                answer.status,
                _id_of(answer, ledger_id),
                answer.headers.get("x-forebay-reason", ""),
                _retry_after_s(answer),
                bytes(held),
                answer.headers.get("x-should-retry") != "false",
            )

    def _trust(self) -> ssl.SSLContext | aiohttp.Fingerprint | bool:
        if self._cert_file is not None:
            # Read each time: it may have been renewed.
            certificate = x509.load_pem_x509_certificate(self._cert_file.read_bytes())
            return aiohttp.Fingerprint(certificate.fingerprint(SHA256()))
        return self._authorities.context() if self._authorities is not None else True


@asynccontextmanager
async def open_gateways(
    urls: Sequence[str], ca_file: Path | None, cert_file: Path | None, pepper: bytes, clock: Clock
) -> AsyncIterator[Gateways]:
    """Raises CannotStart."""
    try:
        authorities = Authorities(ca_file) if ca_file is not None else None
    except CannotStart as error:
        raise CannotStart(f"gateway_ca_file {ca_file} cannot be used. {error.message}") from error
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    timeout = aiohttp.ClientTimeout(total=_LONGEST_S, sock_connect=_CONNECT_S)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, auto_decompress=True, trust_env=False
    ) as session:
        yield Gateways(session, urls, authorities, cert_file, Delegations(pepper), clock)


def _id_of(answer: aiohttp.ClientResponse, ledger_id: bytes) -> str:
    return answer.headers.get("x-request-id") or request_id_of(ledger_id)


def _retry_after_s(answer: aiohttp.ClientResponse) -> float | None:
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            return max(0.0, float(answer.headers[name]) / unit)
        except (KeyError, ValueError):
            continue
    return None


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
