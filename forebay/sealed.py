"""Secrets at rest: AES-256-GCM under a key file, and files that hold the last good snapshot, sealed and dated."""

from __future__ import annotations

import logging
import os
import struct
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from forebay.config import read_secret
from forebay.errors import ForebayError

log = logging.getLogger(__name__)

_NONCE = 12
_STAMP = struct.Struct(">d")


class NotSealed(ForebayError):
    """These bytes were not sealed under this key for this purpose, or were changed since."""


class Seal:
    """Seals bytes for one purpose. The same key file serves many purposes: each derives its own key from it."""

    def __init__(self, secret: bytes, purpose: str) -> None:
        derived = HKDF(SHA256(), length=32, salt=None, info=f"forebay:{purpose}".encode()).derive(secret)
        self._aead = AESGCM(derived)

    @classmethod
    def from_file(cls, path: Path, purpose: str) -> Seal:
        return cls(read_secret(path), purpose)

    def close(self, payload: bytes, bound_to: bytes = b"") -> bytes:
        """Nonce and ciphertext. `bound_to` must be given again to open it: a sealed value cannot change its row."""
        nonce = os.urandom(_NONCE)
        return nonce + self._aead.encrypt(nonce, payload, bound_to)

    def open(self, sealed: bytes, bound_to: bytes = b"") -> bytes:
        try:
            return self._aead.decrypt(sealed[:_NONCE], sealed[_NONCE:], bound_to)
        except (InvalidTag, ValueError) as error:
            raise NotSealed from error


class SnapshotFile:
    """The last snapshot of something another service owns, to start from while that service is away.

    Written whole or not at all (temporary file and rename); unreadable, changed or older than `max_age_s` is None."""

    def __init__(self, path: Path, seal: Seal, max_age_s: float) -> None:
        self._path = path
        self._seal = seal
        self._max_age_s = max_age_s

    def write(self, payload: bytes, now: float) -> None:
        """Blocking, a few hundred microseconds for a small snapshot. Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f"{self._path.name}.new")  # beside it, and no other snapshot's
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(self._seal.close(_STAMP.pack(now) + payload))
        temporary.replace(self._path)

    def read(self, now: float) -> bytes | None:
        try:
            opened = self._seal.open(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, NotSealed) as error:
            extra = {"action": "snapshot_unreadable", "path": str(self._path), "error": str(error)}
            log.warning("stored snapshot cannot be used", extra=extra)
            return None
        (written,) = _STAMP.unpack_from(opened)
        if now - written > self._max_age_s:
            return None
        return opened[_STAMP.size :]
