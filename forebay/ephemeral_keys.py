"""Keys for one request, for those who cannot keep a key: browsers, apps. Made by whoever holds the pepper, which gateways
and admin are, without asking anybody.

An ephemeral key is its own content, sealed: whose key it counts as, until when, and how it is narrowed. What one opens that
is shown is a gateway's to decide; that it works once is admin's to know."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from dataclasses import dataclass
from typing import Any

from forebay.sealed import NotSealed, Seal

PREFIX = "fbe-"
PURPOSE = "ephemeral-key"
USUAL_S = 300
LONGEST_S = 600
MOST_MODELS = 20
_LONGEST = 8192
_ID_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What an ephemeral key allows less than the key it was made with. What is empty or None does not narrow."""

    models: frozenset[str] = frozenset()
    """Names of models; no patterns."""
    max_output_tokens: int | None = None
    origin: str = ""
    """Of the page whose browser sends it."""
    address: str = ""
    """Of the client."""


@dataclass(frozen=True, slots=True)
class EphemeralKey:
    """What one says."""

    id: bytes
    key_id: str
    """The public id of the key that its request counts as."""
    expires_at: int
    """Seconds since the epoch."""
    narrowing: Narrowing


class EphemeralSeal:
    def __init__(self, pepper: bytes) -> None:
        self._seal = Seal(pepper, PURPOSE)

    def issue(self, key_id: str, expires_at: int, narrowing: Narrowing) -> str:
        """The whole key."""
        said = {
            "i": base64.b64encode(secrets.token_bytes(_ID_LENGTH)).decode(),
            "k": key_id,
            "x": expires_at,
            "m": sorted(narrowing.models),
            "t": narrowing.max_output_tokens,
            "o": narrowing.origin,
            "a": narrowing.address,
        }
        sealed = base64.urlsafe_b64encode(self._seal.close(json.dumps(said, ensure_ascii=False).encode())).rstrip(b"=")
        return f"{PREFIX}{sealed.decode()}"

    def open(self, text: str) -> EphemeralKey | None:
        """None for what was not made here, or was changed since. About 10 µs."""
        if len(text) > _LONGEST or not text.isascii() or not is_ephemeral(text):
            return None
        encoded = text.removeprefix(PREFIX)
        try:
            sealed = base64.b64decode(f"{encoded}{'=' * (-len(encoded) % 4)}", altchars=b"-_", validate=True)
            said: dict[str, Any] = json.loads(self._seal.open(sealed))
        except (binascii.Error, NotSealed):
            return None
        narrowing = Narrowing(frozenset(said["m"]), said["t"], said["o"], said["a"])
        return EphemeralKey(base64.b64decode(said["i"]), said["k"], said["x"], narrowing)


def is_ephemeral(key: str | None) -> bool:
    return key is not None and key.startswith(PREFIX)
