"""Telling somebody else's HTTP server: a signed POST, and how it took it. When to try again is here too; what waits for its
turn is the caller's.

Signed as the Standard Webhooks specification (standardwebhooks.com) says, for which receivers have libraries: `webhook-id`
names the message and stays the same when it is sent again, `webhook-timestamp` is in seconds, and `webhook-signature` is
`v1,` and the HMAC-SHA-256 of `<id>.<timestamp>.<body>` in base64."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from forebay.config import read_secret
from forebay.errors import CannotStart

TIMEOUT_S = 10.0
"""For the whole of one try."""
_LEAST_SECRET_BYTES = 16
_PREFIX = "whsec_"
_FIRST_S, _LONGEST_S = 2.0, 900.0
_MOST_SAID = 200
_MOST_ASKED_S = 3600.0
_GONE = 410


@dataclass(frozen=True, slots=True)
class Posted:
    """How one try ended."""

    is_delivered: bool
    said: str
    """One sentence, without anything of the URL but its host."""
    took_s: float
    is_gone: bool = False
    """The receiver wants no more of this."""
    after_s: float | None = None
    """When it asked to be tried again."""


def read_webhook_secret(path: Path) -> bytes:
    """`whsec_` and base64, as the specification writes keys; else the bytes themselves. Raises CannotStart."""
    told = read_secret(path)
    if not told.startswith(_PREFIX.encode()):
        secret = told
    else:
        try:
            secret = base64.b64decode(told.removeprefix(_PREFIX.encode()), validate=True)
        except binascii.Error as error:
            raise CannotStart(f"The secret file {path} begins with {_PREFIX}, and the rest is not base64.") from error
    if len(secret) < _LEAST_SECRET_BYTES:
        raise CannotStart(f"The secret in {path} is shorter than {_LEAST_SECRET_BYTES} bytes (openssl rand -hex 32).")
    return secret


def headers(secret: bytes, message_id: str, body: bytes, now: float) -> Mapping[str, str]:
    """Of a message that is sent at `now`, seconds since the epoch."""
    stamp = str(int(now))
    digest = hmac.new(secret, b".".join((message_id.encode(), stamp.encode(), body)), hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "user-agent": "forebay",
        "webhook-id": message_id,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def backoff_s(failures: int) -> float:
    """Until the next try, after so many in a row that failed: 2 s, 4 s, 8 s … 15 min. To be jittered."""
    return min(_LONGEST_S, _FIRST_S * 2.0 ** max(0, min(failures, 30) - 1))


def host_of(url: str) -> str:
    """What may be shown: paths and queries of webhooks hold secrets."""
    parts = urlsplit(url)
    return (parts.hostname or "") + (f":{parts.port}" if parts.port else "")


async def post(
    session: aiohttp.ClientSession,
    url: str,
    secret: bytes,
    message_id: str,
    body: bytes,
    *,
    now: float,
    timeout_s: float = TIMEOUT_S,
) -> Posted:
    """One try. Delivered is what is answered with 2xx; redirects are not followed, and what else is answered is not read."""
    began, host = time.monotonic(), host_of(url)
    try:
        async with session.post(
            url,
            data=body,
            headers=headers(secret, message_id, body, now),
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=timeout_s),
        ) as answer:
            status, after = answer.status, answer.headers.get("retry-after", "")
            answer.close()
    except TimeoutError:
        return Posted(False, f"{host} did not answer within {timeout_s:g} s.", time.monotonic() - began)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Posted(False, f"{host} cannot be reached: {_words(error)}", time.monotonic() - began)
    took_s = time.monotonic() - began
    if 200 <= status < 300:
        return Posted(True, f"{host} answered {status}.", took_s)
    redirected = (
        " It redirects, which is not followed: name the address that answers itself." if status // 100 == 3 else ""
    )
    return Posted(
        False, f"{host} answered {status}.{redirected}", took_s, is_gone=status == _GONE, after_s=_asked_s(after)
    )


def _asked_s(header: str) -> float | None:
    """Only the form in seconds: a date is of a clock that we do not know."""
    return min(_MOST_ASKED_S, float(header)) if header.isascii() and header.isdigit() else None


def _words(error: BaseException) -> str:
    """An aiohttp error may hold the whole URL; the error of the system below it does not."""
    below = getattr(error, "os_error", None) or (error if isinstance(error, OSError) else None)
    said = (getattr(below, "strerror", None) or str(below)) if below is not None else type(error).__name__
    return " ".join(said.split())[:_MOST_SAID]
