"""Heads of answers, as bytes. Pure: time is an argument."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

SERVER = "forebay"
"""Whose server this is, and of which version, is for nobody to know who might look for its weaknesses."""

_REASONS = {int(status): status.phrase for status in HTTPStatus}
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def answer_head(
    status: int,
    headers: Mapping[str, str],
    added: Mapping[str, str],
    *,
    now: float,
    body_bytes: int | None,
    keeps_alive: bool,
) -> bytes:
    """With the empty line. `now`: seconds since the epoch. `body_bytes`: None for a body that comes in chunks. Raises
    ValueError when a header would be more than one."""
    lines = [*map(": ".join, headers.items())]
    if added:
        lines += map(": ".join, added.items())
    if _CONTROL.search("\t".join(lines)):
        raise ValueError("a header of the answer has a control character in it")
    said = "\r\n".join(lines)
    framing = "transfer-encoding: chunked" if body_bytes is None else f"content-length: {body_bytes}"
    close = "" if keeps_alive else "connection: close\r\n"
    line = f"HTTP/1.1 {status} {_REASONS.get(status, '')}"
    return f"{line}\r\n{said}\r\n{framing}\r\n{_standing(int(now))}{close}\r\n".encode("utf-8", "surrogateescape")


@lru_cache(maxsize=2)
def _standing(now: int) -> str:
    return f"date: {formatdate(now, usegmt=True)}\r\nserver: {SERVER}\r\n"
