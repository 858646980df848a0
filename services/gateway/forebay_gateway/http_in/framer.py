"""Where a hot request's head ends and what it says, by one strict grammar. Pure: bytes in, a head or a word out.

What is not exactly of this form is aiohttp's to read or to refuse: other methods, encodings, anything that can be understood
in more than one way. So a request that is taken here is one that aiohttp would take too, and to mean the same
(https://www.rfc-editor.org/rfc/rfc9112)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

LONGEST_LINE = 16 << 10
"""Of a head, in bytes; aiohttp is held to the same."""
LONGEST_HEAD = 64 << 10

_MOST_LINES = 100
_REQUEST_LINE = re.compile(r"POST (/[0-9A-Za-z/_.~-]{0,4096}) HTTP/1\.1", re.ASCII)
_NAME = re.compile(r"[0-9A-Za-z_-]+", re.ASCII)
_PRINTED = bytes((*b"\t\r\n", *range(0x20, 0x7F), *range(0x80, 0x100)))
_FIRST_LINE = re.compile(rb"[A-Z]+ [!-~]+ HTTP/1\.[01]\r\n")
_BROKEN = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\0")
_LENGTH = re.compile(r"0|[1-9][0-9]{0,14}", re.ASCII)
_NOT_HERE = frozenset(
    (
        *("", "transfer-encoding", "content-encoding", "expect", "upgrade", "te", "trailer", "proxy-connection"),
        *("keep-alive", "http2-settings", "sec-websocket-key"),
    )
)
_KEEPS = {None: True, "keep-alive": True, "close": False}


@dataclass(frozen=True, slots=True)
class Head:
    """Of a POST by HTTP/1.1, with a body of a length that is known."""

    size: int
    """In bytes, with the empty line."""
    path: str
    """As it was sent; it has no escapes, no dots that lead elsewhere and no query."""
    headers: Mapping[str, str]
    """By their names in lower case; each came once."""
    content_length: int
    keeps_alive: bool


class NotHot(Enum):
    MORE = "more"
    """It may become one. More bytes are needed."""
    OTHER = "other"
    """It is none, and may be no HTTP at all."""


def read_head(came: bytes, seen: int = 0) -> Head | NotHot:
    """`came`: from the request's first byte on, and maybe beyond its head. `seen`: so many bytes of it were looked at
    before, and were too few; they are not looked at again, however slowly the others come."""
    end = came.find(b"\r\n\r\n", max(0, seen - 3), LONGEST_HEAD) + 4
    if end < 4:
        return NotHot.MORE if _may_become_a_head(came, seen) else NotHot.OTHER
    raw = came[: end - 4]
    # As aiohttp reads it: other bytes than those of UTF-8 are kept as they are.
    first, *lines = raw.decode("utf-8", "surrogateescape").split("\r\n")
    breaks = len(lines)
    if end > LONGEST_LINE or breaks > _MOST_LINES or raw.count(b"\r") != breaks or raw.count(b"\n") != breaks:
        return NotHot.OTHER
    found = _REQUEST_LINE.fullmatch(first)
    if found is None or "//" in found[1] or "/." in found[1] or raw.translate(None, _PRINTED):
        return NotHot.OTHER
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            return NotHot.OTHER
        headers[_in_lower_case(name)] = value.strip(" \t")
    if len(headers) != breaks or "host" not in headers or not _NOT_HERE.isdisjoint(headers):
        return NotHot.OTHER
    length = headers.get("content-length", "")
    connection = headers.get("connection")
    keeps = _KEEPS.get(connection and connection.lower())
    if keeps is None or not _LENGTH.fullmatch(length):
        return NotHot.OTHER
    return Head(end, found[1], headers, int(length), keeps)


@lru_cache(maxsize=512)
def _in_lower_case(name: str) -> str:
    """Empty of what is no name."""
    return name.lower() if _NAME.fullmatch(name) else ""


def _may_become_a_head(came: bytes, seen: int) -> bool:
    """Any, also one for aiohttp: how long a whole one may take is watched in one place. What is broken is not waited for."""
    if _BROKEN.search(came, max(0, seen - 1)):
        return False
    line_end = came.find(b"\n")
    if line_end < 0:
        return len(came) <= LONGEST_LINE and came[:1].isupper()
    if len(came) - came.rfind(b"\n") > LONGEST_LINE or len(came) > LONGEST_HEAD:
        return False
    return line_end < seen or _FIRST_LINE.match(came) is not None
