"""A word by which admin, when it runs a user's batch, has a gateway take it for one of that user's keys, for one request.

It is proved with the pepper that both hold: nobody else can make one, and no API key can be read out of one. It names the
ledger id under which that request is written down, and works for a minute; that it works once is the gateway's business."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SCHEME = "Forebay-Delegation"
"""Of the header `authorization: Forebay-Delegation <token>`."""

VALID_S = 60.0

_TOKEN = re.compile(r"([0-9a-f]{12})\.([0-9a-f]{32})\.([0-9]{1,12})\.([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Delegation:
    key_id: str
    """The public id of the key that the request counts as."""
    ledger_id: bytes
    expires_at: int
    """Seconds since the epoch."""


class Delegations:
    def __init__(self, pepper: bytes) -> None:
        # A key of its own: what is stored of API keys is made with the pepper itself.
        self._key = HKDF(SHA256(), length=32, salt=None, info=b"forebay:delegation").derive(pepper)

    def issue(self, key_id: str, ledger_id: bytes, now: float) -> str:
        """The token, from now on for VALID_S."""
        said = f"{key_id}.{ledger_id.hex()}.{int(now + VALID_S)}"
        return f"{said}.{self._prove(said)}"

    def read(self, token: str, now: float) -> Delegation | None:
        """None when it is not one of ours, or not any more."""
        parts = _TOKEN.fullmatch(token)
        said, _, proof = token.rpartition(".")
        if parts is None or not hmac.compare_digest(self._prove(said), proof):
            return None
        delegation = Delegation(parts[1], bytes.fromhex(parts[2]), int(parts[3]))
        return delegation if now < delegation.expires_at else None

    def _prove(self, said: str) -> str:
        return hmac.new(self._key, said.encode(), hashlib.sha256).hexdigest()
