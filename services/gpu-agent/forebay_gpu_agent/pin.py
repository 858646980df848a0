"""Trust in one public key instead of a CA: the SHA-256 of the server's SubjectPublicKeyInfo (RFC 7469), written as curl's
--pinnedpubkey takes it. An invitation brings the pin along, so that a node needs no certificate before it has joined."""

from __future__ import annotations

import base64
import hashlib
import http.client
import ssl
import urllib.request
from typing import Any

from forebay.errors import NotAuthenticated

_PREFIX = "sha256//"
_SEQUENCE, _VERSION_TAG = 0x30, 0xA0
_FIELDS_BEFORE_THE_KEY = 5  # serialNumber, signature, issuer, validity, subject (RFC 5280 §4.1)


def pin_of(certificate: bytes) -> str:
    """`sha256//…` of a certificate in DER. Raises ValueError."""
    return _PREFIX + base64.b64encode(hashlib.sha256(_public_key(certificate)).digest()).decode()


def open_pinned(pin: str) -> urllib.request.OpenerDirector:
    """Opens https addresses whose server holds the key of `pin` (several with `;` between), and no others. What is asked
    leaves this machine after that is known: another server raises NotAuthenticated and learns nothing."""
    return urllib.request.build_opener(_PinnedHandler(frozenset(pin.split(";"))))


class _PinnedConnection(http.client.HTTPSConnection):
    def __init__(self, *args: Any, pins: frozenset[str], **options: Any) -> None:
        super().__init__(*args, **options)
        self._pins = pins

    def connect(self) -> None:
        super().connect()
        assert isinstance(self.sock, ssl.SSLSocket)
        shown = pin_of(self.sock.getpeercert(binary_form=True) or b"")
        if shown not in self._pins:
            self.close()
            raise NotAuthenticated(
                f"The server at {self.host}:{self.port} holds another key than the one invited to ({shown})."
                " Do not go on before you know why: make a new invitation, or find out who answers there."
            )


class _PinnedHandler(urllib.request.HTTPSHandler):
    def __init__(self, pins: frozenset[str]) -> None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the pin says more than a name that some CA has signed
        super().__init__(context=context)
        self._pinned_context = context
        self._pins = pins

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        def connection(host: str, **options: Any) -> _PinnedConnection:
            return _PinnedConnection(host, pins=self._pins, **options)

        return self.do_open(connection, req, context=self._pinned_context)


def _public_key(certificate: bytes) -> bytes:
    """SubjectPublicKeyInfo, cut out of a certificate. Both are DER. Raises ValueError."""
    try:
        _, at, _ = _element(certificate, 0)  # Certificate
        _, at, _ = _element(certificate, at)  # tbsCertificate
        tag, _, end = _element(certificate, at)
        if tag == _VERSION_TAG:
            at = end
        for _ in range(_FIELDS_BEFORE_THE_KEY):
            _, _, at = _element(certificate, at)
        tag, _, end = _element(certificate, at)
    except IndexError as error:
        raise ValueError("this is not a certificate") from error
    if tag != _SEQUENCE or end > len(certificate):
        raise ValueError("this is not a whole certificate")
    return certificate[at:end]


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """(tag, where its content starts, where it ends)."""
    tag, length, at = der[at], der[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, at = int.from_bytes(der[at : at + count], "big"), at + count
    return tag, at, at + length
