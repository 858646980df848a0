"""Requests that come twice with one Idempotency-Key: what the second is answered. Pure.

An answer is kept for a day, for the caller that got it. Only what was done is kept: a refusal changed nothing, and the same
request may be made again. Where nobody knows how it ended, because admin did too or the answer could not be kept, that is
said, and it is not done again."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta

from forebay.errors import BadInput
from forebay_admin.rest.failures import NotRepeated, StillUnderWay

HEADER = "idempotency-key"
REPLAYED = "idempotency-replayed"
KEPT = timedelta(hours=24)
LONGEST_CALL = timedelta(seconds=60)
"""What began longer ago than this and has no answer will have none."""
_LONGEST_KEY = 255


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of a request with that key."""

    mac: bytes
    begun_at: datetime
    status: int | None
    """None: it has no answer yet."""
    answer: bytes = b""


def demand_key(text: str) -> str:
    """Raises BadInput."""
    if not 1 <= len(text) <= _LONGEST_KEY or not text.isascii() or not text.isprintable():
        raise BadInput(f"An Idempotency-Key is 1 to {_LONGEST_KEY} printable characters of ASCII.")
    return text


def request_mac(secret: bytes, address: str, body: bytes) -> bytes:
    """What tells one request from another. Keyed, since bodies hold keys of engines."""
    address_mac = hmac.digest(
        secret, b"forebay:rest-address\n" + address.encode(errors="surrogateescape"), hashlib.sha256
    )
    return hmac.digest(address_mac, body, hashlib.sha256)


def answer_again(kept: Kept, mac: bytes, now: datetime) -> tuple[int, bytes]:
    """The status and body of the answer there was. Raises NotRepeated, StillUnderWay."""
    if not hmac.compare_digest(kept.mac, mac):
        raise NotRepeated("This Idempotency-Key came with another request before: take a new one.")
    if kept.status is None:
        if now - kept.begun_at < LONGEST_CALL:
            raise StillUnderWay("The request with this Idempotency-Key is still under way.", retry_after_s=1.0)
        raise StillUnderWay(
            "Whether the request with this Idempotency-Key was done is not known: look, and ask again with a new key."
        )
    return kept.status, kept.answer
