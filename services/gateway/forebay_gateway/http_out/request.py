"""A request to an engine as it goes over the wire: where to, its head, and a body of which the length is known or not. Pure.

No value that would end a line, or begin another, is ever written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from yarl import URL

LARGE = 1 << 20
"""Bytes from which on a body is written piece by piece, as fast as the engine takes it."""
_MOST_TARGETS = 4096
_BODILESS = ("GET", "HEAD")


class Address(NamedTuple):
    """Where connections go to. The same for all backends at one host and port."""

    host: str
    """A name or a numeric address, without brackets."""
    port: int
    is_tls: bool


@dataclass(frozen=True, slots=True)
class Target:
    address: Address
    start: bytes
    """What the head of each request to it begins with."""
    is_head: bool
    """Its answers have no body, whatever they say."""
    has_body: bool
    """Also when it is empty."""


class BodyPieces:
    """A body that is not in memory as a whole."""

    def __init__(self, pieces: Callable[[], AsyncIterator[bytes]], length: int | None, *, can_repeat: bool) -> None:
        """`length`: in bytes; None: nobody knows. `can_repeat`: `pieces` may be called again."""
        self.pieces, self.length, self.can_repeat = pieces, length, can_repeat


class Request:
    __slots__ = ("body", "can_repeat", "head", "is_in_pieces", "target")

    def __init__(self, target: Target, lines: bytes, body: bytes | BodyPieces) -> None:
        """`lines`: of the head, those that `target` does not have."""
        self.target, self.body = target, body
        if isinstance(body, bytes):
            size = len(body)
            length: int | None = size
            self.can_repeat, self.is_in_pieces, has_none = True, size > LARGE, not size and not target.has_body
        else:
            length, self.can_repeat, self.is_in_pieces, has_none = body.length, body.can_repeat, True, False
        if has_none:
            self.head = b"%s%s\r\n" % (target.start, lines)
        elif length is None:
            self.head = b"%s%stransfer-encoding: chunked\r\n\r\n" % (target.start, lines)
        else:
            self.head = b"%s%scontent-length: %d\r\n\r\n" % (target.start, lines, length)
        """With the framing of the body, and the empty line."""


class Targets:
    """Addresses as they are asked again and again."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], Target] = {}

    def get(self, method: str, base: str, path: str) -> Target:
        """`base`: a backend's URL. Raises ValueError when it is none."""
        known = self._known.get((method, base, path))
        if known is None:
            if len(self._known) >= _MOST_TARGETS:  # some kinds of engines have models in their paths
                self._known.clear()
            known = self._known[method, base, path] = target_of(method, base + path)
        return known


def target_of(method: str, url: str) -> Target:
    """Raises ValueError."""
    parsed = URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.raw_host or parsed.port is None:
        raise ValueError(f"no address of an engine: it begins with {parsed.scheme or 'nothing'!r} or has no host")
    host = f"[{parsed.raw_host}]" if ":" in parsed.raw_host else parsed.raw_host
    if not parsed.is_default_port():
        host = f"{host}:{parsed.port}"
    start = f"{method} {parsed.raw_path_qs} HTTP/1.1\r\nhost: {host}\r\naccept: */*\r\naccept-encoding: identity\r\n"
    # A compressed stream would be held back until a block is full.
    address = Address(parsed.raw_host, parsed.port, parsed.scheme == "https")
    return Target(address, start.encode("ascii"), method == "HEAD", method not in _BODILESS)


def header_lines(headers: Mapping[str, str]) -> bytes:
    """Raises ValueError for what cannot be one header."""
    text = "\r\n".join((*map(": ".join, headers.items()), ""))
    if not text.count("\r") == text.count("\n") == len(headers) or "\0" in text:
        raise ValueError("A header to an engine has a line break or a null byte in it.")
    return text.encode("utf-8", "surrogateescape")  # bytes that a client sent pass as they came
