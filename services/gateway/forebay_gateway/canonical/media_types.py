"""What kind of bytes a file has, by its name or by how it begins. Pure."""

from __future__ import annotations

from mimetypes import MimeTypes
from pathlib import PurePath

ANYTHING = "application/octet-stream"
PDF = "application/pdf"

_KNOWN = MimeTypes()  # those of Python's own list, whatever the machine's files say
for _ending, _type in {
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".webp": "image/webp",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}.items():
    _KNOWN.add_type(_type, _ending)

_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", PDF),
)


def type_by_name(filename: str) -> str:
    return _KNOWN.types_map[True].get(PurePath(filename).suffix.lower(), ANYTHING)


def type_by_content(content: bytes) -> str | None:
    """Of a picture that models look at, or a PDF. None: it is neither."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for beginning, kind in _BEGINNINGS if content.startswith(beginning)), None)
