"""What a Forebay key looks like and how it is kept: `fb-<public id>-<secret>`.

The public id (12 hexadecimal digits) names the key in lists and logs. The secret is 256 random bits; only its
HMAC-SHA-256 under a pepper is stored. A slow password hash would protect nothing here and cost every request."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

PREFIX = "fb"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_LENGTH = 43  # 62**43 > 2**256
_ID_LENGTH = 12


@dataclass(frozen=True, slots=True)
class ForebayKey:
    public_id: str
    secret: str

    def __str__(self) -> str:
        return f"{PREFIX}-{self.public_id}-{self.secret}"

    def __repr__(self) -> str:
        return f"ForebayKey({self.public_id})"  # the secret stays out of logs and tracebacks


def new_key() -> ForebayKey:
    number = int.from_bytes(secrets.token_bytes(32))
    digits = []
    for _ in range(_SECRET_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return ForebayKey(secrets.token_hex(_ID_LENGTH // 2), "".join(digits))


def parse_key(text: str) -> ForebayKey | None:
    """The key written in `text`, or None when it has not the form of one."""
    parts = text.split("-", 2)
    if not text.isascii():  # a header may hold bytes that are no text at all
        return None
    if len(parts) != 3 or parts[0] != PREFIX or len(parts[1]) != _ID_LENGTH or not parts[2]:
        return None
    return ForebayKey(parts[1], parts[2])


def seal_secret(pepper: bytes, secret: str) -> bytes:
    """What is stored of a key: HMAC-SHA-256(pepper, secret), 32 bytes."""
    return hmac.digest(pepper, secret.encode(), hashlib.sha256)


def is_secret(pepper: bytes, secret: str, stored: bytes) -> bool:
    return hmac.compare_digest(seal_secret(pepper, secret), stored)


def is_one_of(pepper: bytes, secret: str, stored: Iterable[bytes]) -> bool:
    """Of the secrets of a key that was given another a while ago."""
    sealed = seal_secret(pepper, secret)
    return any(hmac.compare_digest(sealed, one) for one in stored)
