"""Keys for one request, for those who cannot keep a key: browsers, apps.

A gateway makes one out of an API key without asking anybody: it is sealed under the pepper that all gateways hold, and says
whose key it counts as, until when, and how it is narrowed. That it works once is admin's to know (`ephemeral_spending`)."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import orjson

from forebay.errors import NotAllowed
from forebay.sealed import NotSealed, Seal
from forebay_gateway.callers.key_terms import KeyTerms, parse_address
from forebay_gateway.callers.principals import Principal
from forebay_gateway.refused import InvalidKey, KeyExpired

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
    id: bytes
    key_id: str
    """The public id of the key that its request counts as."""
    expires_at: int
    """Seconds since the epoch."""
    narrowing: Narrowing

    def principal(self, whose: Principal, *, origin: str, address: str) -> Principal:
        """`whose`: the caller with the key that it was made with. Raises NotAllowed where it is used from elsewhere than it
        was made for."""
        mine = self.narrowing
        if mine.origin and mine.origin != origin:
            raise NotAllowed("This ephemeral key is for a page of another origin than the request's.")
        if mine.address and parse_address(mine.address) != parse_address(address):
            raise NotAllowed("This ephemeral key is for a client at another address.")
        terms = whose.terms or KeyTerms()
        return replace(
            whose,
            only_models=mine.models,
            terms=replace(terms, max_output_tokens=_less(terms.max_output_tokens, mine.max_output_tokens)),
        )


class EphemeralKeys:
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
        sealed = base64.urlsafe_b64encode(self._seal.close(orjson.dumps(said))).rstrip(b"=")
        return f"{PREFIX}{sealed.decode()}"

    def read(self, text: str, now: float) -> EphemeralKey:
        """Raises InvalidKey, KeyExpired. About 10 µs."""
        said = self._open(text)
        if now >= said["x"]:
            raise KeyExpired("This ephemeral key has expired. Have another made: POST /v1/ephemeral_keys.")
        narrowing = Narrowing(frozenset(said["m"]), said["t"], said["o"], said["a"])
        return EphemeralKey(base64.b64decode(said["i"]), said["k"], said["x"], narrowing)

    def _open(self, text: str) -> dict[str, Any]:
        if len(text) > _LONGEST or not text.isascii() or not is_ephemeral(text):
            raise InvalidKey
        encoded = text.removeprefix(PREFIX)
        try:
            sealed = base64.b64decode(f"{encoded}{'=' * (-len(encoded) % 4)}", altchars=b"-_", validate=True)
            said: dict[str, Any] = orjson.loads(self._seal.open(sealed))
        except (binascii.Error, NotSealed) as error:
            raise InvalidKey from error
        return said


def is_ephemeral(key: str | None) -> bool:
    return key is not None and key.startswith(PREFIX)


def _less(one: int | None, other: int | None) -> int | None:
    known: Collection[int] = [number for number in (one, other) if number is not None]
    return min(known) if known else None
