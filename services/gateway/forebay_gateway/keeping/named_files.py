"""Files that a chat names or brings along, put into it as what its model can read. What that is, is decided in
`canonical.file_parts`; here they are looked up, fetched and decoded."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp

from forebay.errors import NotFound
from forebay_gateway.canonical.data_url import BASE64_DATA_URL
from forebay_gateway.canonical.file_parts import (
    MOST_FILES,
    File,
    FilePart,
    file_parts,
    fold_texts,
    shown,
    unread_document,
)
from forebay_gateway.canonical.media_types import ANYTHING, type_by_name
from forebay_gateway.keeping.files import Files, no_such_file
from forebay_gateway.keeping.room import Hold, Room
from forebay_gateway.public_web import Fetches, NotFetched
from forebay_gateway.refused import BadField


@dataclass(frozen=True, slots=True)
class Reader:
    """On whose behalf files are put into a chat, and what of them may be."""

    user_id: str
    most_bytes: int
    """Of all that are not in the request itself."""
    reads_documents: bool
    """Whether some engine that has the model reads PDFs."""
    hold: Hold
    fetches: Fetches


@dataclass(frozen=True, slots=True)
class FilesPut:
    prompt_bytes: int = 0
    """By which the prompt has grown; of what can be read as text."""
    document_at: str = ""
    """The field that has the first document which not every engine reads."""


class NamedFiles:
    def __init__(self, files: Files) -> None:
        self._files = files

    async def put_into(self, fields: Mapping[str, Any], reader: Reader) -> FilesPut:
        """Raises BadField, NotKept, BodyTooLarge, StateUnavailable."""
        named = list(file_parts(fields))
        sources = [part.source() for part in named]  # nothing is fetched for a request that is refused for another
        if len(named) > MOST_FILES:
            param = named[MOST_FILES].param(sources[MOST_FILES][0])
            raise BadField(f"{len(named)} files are more than {MOST_FILES}.", param=param, code="invalid_value")
        room = Room(reader.most_bytes, reader.hold, "The files that this request names")
        prompt_bytes, document_at = 0, ""
        for part, (name, value) in zip(named, sources, strict=True):
            param = part.param(name)
            file = await self._read(part, name, value, param, room, reader)
            told = await asyncio.to_thread(shown, file, part, param)
            if told.is_document and not reader.reads_documents:
                raise unread_document(param)
            if name != "file_data" and not told.text_bytes:
                room.hold(len(file.content) // 3 + 100)  # what stands in the request is longer than the file
            prompt_bytes += told.text_bytes - (len(value) if name == "file_data" and told.text_bytes else 0)
            document_at = document_at or (param if told.is_document else "")
            part.show(told.part)
        fold_texts(fields)
        return FilesPut(prompt_bytes, document_at)

    async def _read(self, part: FilePart, name: str, value: str, param: str, room: Room, reader: Reader) -> File:
        called = part.told.get("filename")
        filename = called if isinstance(called, str) and called else ""
        match name:
            case "file_id":
                return await self._stored(value, filename, param, room, reader.user_id)
            case "file_url":
                return await self._fetched(value, filename, param, room, reader.fetches)
            case _:
                return await asyncio.to_thread(_decoded, value, filename or "file", param)

    async def _stored(self, id: str, filename: str, param: str, room: Room, user_id: str) -> File:
        file = await self._files.find(user_id, id, param=param)
        room.take(file.blob_bytes)
        content = bytearray()
        try:
            async for piece in self._files.read(file):
                content += piece
        except NotFound as error:
            raise no_such_file(id, param) from error
        filename = filename or file.body["filename"]
        return File(filename, bytes(content), type_by_name(filename))

    async def _fetched(self, url: str, filename: str, param: str, room: Room, fetches: Fetches) -> File:
        try:
            fetched = await fetches.fetch(url, room.left, room.take)
        except NotFetched as error:
            raise _unfetched(param, str(error)) from error
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise _unfetched(param, f"no answer came ({type(error).__name__})") from error
        name = filename or PurePosixPath(unquote(urlsplit(url).path)).name or "file"
        return File(name, fetched.content, fetched.media_type)


def _decoded(data: str, filename: str, param: str) -> File:
    """A data: URL, or its base64 alone. Raises BadField."""
    begun = BASE64_DATA_URL.match(data)
    encoded = data[begun.end() :] if begun is not None else data
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadField(
            f"`{param}` must have the file's bytes in base64, best as a data: URL.", param=param, code="invalid_value"
        ) from error
    told = begun[1] if begun is not None else type_by_name(filename)
    return File(filename, content, told or ANYTHING, url=data if begun is not None else None)


def _unfetched(param: str, why: str) -> BadField:
    return BadField(
        f"The file at `{param}` cannot be fetched: {why}. Send its bytes as `file_data`, or store it and send `file_id`.",
        param=param,
        code="invalid_value",
    )
