"""A stream of bytes under a passphrase: AES-256-GCM in pieces, so that neither end holds the whole of it.

Each piece is bound to its number and to whether it is the last: none can be changed, left out, moved or cut off without that
being noticed. The key comes from the passphrase by scrypt, with a salt of its own for each file."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from forebay.errors import ForebayError

MAGIC = b"forebay sealed backup 1\n"
_SALT = 16
_PIECE = 1 << 20
_TAG = 16
_LENGTH = struct.Struct(">I")
_NONCE = struct.Struct(">3xQB")
"""The piece's number, and whether it is the last."""


class NotOpened(ForebayError):
    """The backup cannot be opened: the passphrase is another one, or the file was changed or cut off."""


class SealingWriter:
    """A file to write to. `close` writes the last piece, and leaves `target` open."""

    def __init__(self, target: BinaryIO, passphrase: bytes) -> None:
        salt = os.urandom(_SALT)
        self._target = target
        self._aead = AESGCM(_key(passphrase, salt))
        self._pending = bytearray()
        self._number = 0
        target.write(MAGIC + salt)

    def write(self, content: bytes) -> int:
        self._pending += content
        while len(self._pending) > _PIECE:
            self._put(bytes(self._pending[:_PIECE]), is_last=False)
            del self._pending[:_PIECE]
        return len(content)

    def flush(self) -> None: ...

    def close(self) -> None:
        self._put(bytes(self._pending), is_last=True)
        self._pending.clear()

    def _put(self, piece: bytes, *, is_last: bool) -> None:
        sealed = self._aead.encrypt(_NONCE.pack(self._number, is_last), piece, None)
        self._target.write(_LENGTH.pack(len(sealed)) + sealed)
        self._number += 1


class OpeningReader:
    """A file to read from, whose `source` stands behind MAGIC. Raises NotOpened."""

    def __init__(self, source: BinaryIO, passphrase: bytes) -> None:
        self._source = source
        self._aead = AESGCM(_key(passphrase, self._exactly(_SALT)))
        self._number = 0
        self._opened = bytearray()
        self._is_over = False

    def read(self, size: int = -1) -> bytes:
        while not self._is_over and (size < 0 or len(self._opened) < size):
            self._open_next()
        end = len(self._opened) if size < 0 else size
        given = bytes(self._opened[:end])
        del self._opened[:end]
        return given

    def _open_next(self) -> None:
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        if not _TAG <= length <= _PIECE + _TAG:
            raise NotOpened
        sealed = self._exactly(length)
        for is_last in (False, True):
            try:
                piece = self._aead.decrypt(_NONCE.pack(self._number, is_last), sealed, None)
            except InvalidTag:
                continue
            self._opened += piece
            self._number += 1
            self._is_over = is_last
            if is_last and self._source.read(1):
                raise NotOpened
            return
        raise NotOpened

    def _exactly(self, count: int) -> bytes:
        content = self._source.read(count)
        if len(content) != count:
            raise NotOpened
        return content


def _key(passphrase: bytes, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=2**15, r=8, p=1).derive(passphrase)
