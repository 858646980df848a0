"""A form with files as it goes to an engine (RFC 7578), read from the disk as fast as it is taken."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator

from forebay_gateway.canonical.upload import File, Upload
from forebay_gateway.http_out.request import BodyPieces

_READ = 256 << 10


class Form:
    def __init__(self, upload: Upload) -> None:
        """Raises ValueError for names that would end a header."""
        self._boundary = secrets.token_hex(16)
        self._texts = b"".join(self._text(name, value) for name, value in upload.texts)
        self._files = [(self._file_head(file), file) for file in upload.files]
        self._end = f"--{self._boundary}--\r\n".encode()
        self.content_type = f"multipart/form-data; boundary={self._boundary}"

    def body(self) -> BodyPieces:
        """Its files are there until it is sent: whoever sends it sees to that. Raises OSError."""
        files = sum(len(head) + file.path.stat().st_size + 2 for head, file in self._files)
        return BodyPieces(self._pieces, len(self._texts) + files + len(self._end), can_repeat=True)

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        yield self._texts
        for head, file in self._files:
            yield head
            with await asyncio.to_thread(file.path.open, "rb") as opened:
                while piece := await asyncio.to_thread(opened.read, _READ):
                    yield piece
            yield b"\r\n"
        yield self._end

    def _text(self, name: str, value: str) -> bytes:
        head = self._head(f'name="{_quoted(name)}"', "text/plain; charset=utf-8")
        return head + value.encode("utf-8", "surrogateescape") + b"\r\n"

    def _file_head(self, file: File) -> bytes:
        names = f'name="{_quoted(file.field)}"; filename="{_quoted(file.filename)}"'
        return self._head(names, _checked(file.content_type))

    def _head(self, names: str, content_type: str) -> bytes:
        head = f"--{self._boundary}\r\nContent-Type: {content_type}\r\nContent-Disposition: form-data; {names}\r\n\r\n"
        return head.encode("utf-8", "surrogateescape")


def _quoted(name: str) -> str:
    # Names go on as they came; only quotes are escaped.
    return _checked(name).replace("\\", "\\\\").replace('"', '\\"')


def _checked(value: str) -> str:
    if any(sign in value for sign in "\r\n\0"):
        raise ValueError("A name in a form has a line break or a null byte in it.")
    return value
