"""Where in a trace something happens, and how headers tell it. Pure; W3C Trace Context, https://www.w3.org/TR/trace-context/.

Whether a request is traced is for `spans` to decide."""

from __future__ import annotations

import re
from typing import NamedTuple

LONGEST_STATE = 512
"""Characters. The standard asks for at least as many to be passed on."""
_MOST_MEMBERS = 32
_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_LENGTH = 55
_KEY = r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
_VALUE = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER = re.compile(f"({_KEY})={_VALUE}")


class Place(NamedTuple):
    """A span of a trace that is kept."""

    trace: bytes
    """16 bytes."""
    span: bytes
    """8 bytes."""
    state: str = ""
    """What others have put into the header `tracestate`, for those after us."""

    @property
    def traceparent(self) -> str:
        """The header of what is asked from here."""
        return f"00-{self.trace.hex()}-{self.span.hex()}-01"

    @property
    def packed(self) -> bytes:
        """24 bytes, as services tell each other."""
        return self.trace + self.span


def unpacked(told: bytes) -> Place | None:
    """None for what is none."""
    return Place(told[:16], told[16:]) if len(told) == 24 else None


def read_traceparent(text: str) -> str | None:
    """In the form of version 00. None for what is malformed, of which nothing may be believed."""
    if _PARENT.match(text) is None:
        return None
    if text.startswith("00"):
        return text if len(text) == _LENGTH else None
    # A later version may add fields, and means the same by those before them.
    return f"00{text[2:_LENGTH]}" if len(text) == _LENGTH or text[_LENGTH] == "-" else None


def read_tracestate(text: str) -> str:
    """As it came. Empty for what is malformed, or longer than what is passed on."""
    if len(text) > LONGEST_STATE:
        return ""
    members = [member.strip(" \t") for member in text.split(",")]
    found = [_MEMBER.fullmatch(member) for member in members if member]
    keys = {member[1] for member in found if member is not None}
    return text if len(members) <= _MOST_MEMBERS and len(keys) == len(found) else ""


def is_sampled(traceparent: str) -> bool:
    """Whoever sent it keeps the trace. `traceparent`: as `read_traceparent` gave it."""
    return int(traceparent[53:], 16) & 1 == 1


def place_in(traceparent: str, state: str = "") -> Place:
    """The span that it names. `traceparent`: as `read_traceparent` gave it."""
    return Place(bytes.fromhex(traceparent[3:35]), bytes.fromhex(traceparent[36:52]), state)
