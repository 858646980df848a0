"""Public ed25519 keys as OpenSSH writes them: the line of a `.pub` file, the wire form (RFC 8709 §4), the fingerprint.

Inside Forebay such a key is its 32 bytes. What its owner may do is not told here."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

LENGTH = 32
_ALGORITHM = "ssh-ed25519"
_WIRE_HEAD = len(_ALGORITHM).to_bytes(4) + _ALGORITHM.encode() + LENGTH.to_bytes(4)
_LONGEST = 16 << 10


@dataclass(frozen=True, slots=True)
class PublicLine:
    public_key: bytes
    comment: str
    """What stands behind the key, such as `alice@laptop`; empty when nothing does."""


def parse_line(text: str) -> PublicLine:
    """`ssh-ed25519 AAAA… comment`, as in `~/.ollama/id_ed25519.pub`. Raises ValueError in words for the one who gave it."""
    if "PRIVATE KEY" in text:
        raise ValueError("This is a private key, which is nobody else's business. Give the file that ends in .pub.")
    line = text.strip()
    if len(line) > _LONGEST or len(line.splitlines()) > 1:
        raise ValueError("A public key is one line, `ssh-ed25519 AAAA…`; this is more.")
    algorithm, encoded, comment = [*line.split(None, 2), "", "", ""][:3]
    if algorithm != _ALGORITHM:
        kind = f"{algorithm[:40]!r} begins this one" if algorithm else "this is empty"
        raise ValueError(f"A key that signs is of the kind ed25519, and its line begins with `ssh-ed25519`; {kind}.")
    return PublicLine(from_base64(encoded), comment)


def from_base64(text: str) -> bytes:
    """The key whose wire form this is, in base64. Raises ValueError, as for what is no ed25519 key."""
    try:
        wire = base64.b64decode(text, validate=True)
    except ValueError:
        wire = b""
    if not wire.startswith(_WIRE_HEAD) or len(wire) != len(_WIRE_HEAD) + LENGTH:
        raise ValueError("This is not an ed25519 key.")
    return wire[len(_WIRE_HEAD) :]


def to_base64(public_key: bytes) -> str:
    return base64.b64encode(_WIRE_HEAD + public_key).decode()


def to_line(public_key: bytes) -> str:
    return f"{_ALGORITHM} {to_base64(public_key)}"


def fingerprint(public_key: bytes) -> str:
    """As `ssh-keygen -l` shows it: `SHA256:` and 43 characters."""
    digest = hashlib.sha256(_WIRE_HEAD + public_key).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
