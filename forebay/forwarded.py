"""Whose request a gateway passes on to admin: the client's address, proved with the pepper that both hold, so that admin
believes a gateway and nobody else. It is about one request, and works for a minute."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

HEADER = "x-forebay-forwarded"
"""`<seconds since the epoch> <proof> <address>`; - for no address."""

VALID_S = 60

_ADDRESS = re.compile(r"[0-9A-Za-z:.%]{1,64}", re.ASCII)
_TOLD = re.compile(rf"([0-9]{{1,12}}) ([0-9a-f]{{64}}) (-|{_ADDRESS.pattern})", re.ASCII)


class Forwards:
    def __init__(self, pepper: bytes) -> None:
        # A key of its own: what is stored of API keys is made with the pepper itself.
        self._key = HKDF(SHA256(), length=32, salt=None, info=b"forebay:forwarded").derive(pepper)

    def tell(self, address: str, method: str, target: str, now: float) -> str:
        """The header's value. `address`: the client's, empty where nobody knows. `target`: path and query, as sent."""
        at, shown = str(int(now)), address if _ADDRESS.fullmatch(address) else "-"
        return f"{at} {self._prove(at, shown, method, target)} {shown}"

    def read(self, headers: Mapping[str, str], method: str, target: str, now: float) -> str | None:
        """The client's address; None where no gateway says whose request this is."""
        told = _TOLD.fullmatch(headers.get(HEADER, ""))
        if told is None:
            return None
        at, proof, address = told.groups()
        if not hmac.compare_digest(self._prove(at, address, method, target), proof):
            return None
        if abs(now - int(at)) > VALID_S:
            return None
        return "" if address == "-" else address

    def _prove(self, *said: str) -> str:
        return hmac.new(self._key, "\n".join(said).encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
