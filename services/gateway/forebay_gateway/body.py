"""Reads a request's body: no longer and not slower than allowed, and within what all requests together may hold.

Of a form, files go to the disk as they come: however large a recording is, only a piece of it is in memory."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from forebay.errors import BadInput
from forebay_gateway.canonical.upload import File, Upload
from forebay_gateway.held_body import HeldBody
from forebay_gateway.refused import BodyStalled, BodyTooLarge

T = TypeVar("T")

_LONGEST_TEXT = 1 << 20
_MOST_PARTS = 64
_PIECE = 64 << 10
_BREATH = 1 << 20
_NO_NAME = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""Control characters and bytes that are no UTF-8: they cannot be sent on in a part's headers, or would end them."""


async def read_body(request: web.BaseRequest, held: HeldBody, *, most_bytes: int, idle_s: float) -> bytes:
    """Raises BodyTooLarge, BodyStalled, and Refused when memory and disk are spent."""
    announced = request.content_length
    if announced is not None and announced > most_bytes:
        raise too_large(most_bytes)
    await say_go_on(request)
    size, breath_at = 0, _BREATH
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(idle_s) as idle:
            while not request.content.at_eof():
                # Not all that is there: while a piece is put away, the rest holds its client back.
                piece = await request.content.read(_PIECE)
                size += len(piece)
                if size > most_bytes:
                    raise too_large(most_bytes)
                await held.add(piece)
                idle.reschedule(loop.time() + idle_s)
                if size >= breath_at:  # what is unpacked comes without a pause of its own, and others want their turn
                    breath_at = size + _BREATH
                    await asyncio.sleep(0)
    except TimeoutError as error:
        raise BodyStalled from error
    except web.RequestPayloadError as error:
        raise BadInput("The request's body was cut off, or is not encoded as its headers say.") from error
    return await held.whole()


@asynccontextmanager
async def reading_upload(
    request: web.BaseRequest, *, most_bytes: int, idle_s: float, directory: Path | None = None
) -> AsyncIterator[Upload]:
    """Its files lie on the disk until left, below `directory`. Raises BadInput, BodyTooLarge, BodyStalled."""
    if not request.content_type.startswith("multipart/form-data"):
        raise BadInput("This address takes a form: its content-type must be multipart/form-data, with a boundary.")
    if (request.content_length or 0) > most_bytes:
        raise too_large(most_bytes)
    await say_go_on(request)
    with tempfile.TemporaryDirectory(prefix="forebay-upload-", dir=directory, ignore_cleanup_errors=True) as place:
        try:
            upload = await _Reading(Path(place), most_bytes, idle_s).read(request)
        except TimeoutError as error:
            raise BodyStalled from error
        except (ValueError, RuntimeError, HttpProcessingError, web.HTTPException, web.RequestPayloadError) as error:
            raise BadInput("The form was cut off, or is not encoded as its headers say.") from error
        yield upload


class _Reading:
    def __init__(self, directory: Path, most_bytes: int, idle_s: float) -> None:
        self._directory, self._most_bytes, self._idle_s = directory, most_bytes, idle_s
        self._size = 0

    async def read(self, request: web.BaseRequest) -> Upload:
        upload = Upload()
        reader = await request.multipart()
        while (part := await self._in_time(reader.next)) is not None:
            if not isinstance(part, BodyPartReader) or not part.name:
                raise BadInput("Each part of the form needs a name, and none may be a form itself.")
            told = (part.name, part.filename or "", part.headers.get("content-type", ""))
            if any(map(_NO_NAME.search, told)):
                raise BadInput("A part of the form has a control character, or what is no UTF-8, in its name or type.")
            if len(upload.texts) + len(upload.files) >= _MOST_PARTS:
                raise BadInput(f"The form has more than {_MOST_PARTS} parts.")
            if part.filename is None:
                upload.texts.append((part.name, await self._text(part)))
            else:
                upload.files.append(await self._file(part, self._directory / str(len(upload.files))))
        return upload

    async def _text(self, part: BodyPartReader) -> str:
        text = bytearray()
        while piece := await self._piece(part):
            text += piece
            if len(text) > _LONGEST_TEXT:
                raise BodyTooLarge(f"The form's field {part.name} is longer than {_LONGEST_TEXT} bytes.")
        return text.decode()

    async def _file(self, part: BodyPartReader, path: Path) -> File:
        with path.open("wb") as content:
            while piece := await self._piece(part):
                await asyncio.to_thread(content.write, piece)
        content_type = part.headers.get("content-type", "application/octet-stream")
        return File(str(part.name), str(part.filename), content_type, path)

    async def _piece(self, part: BodyPartReader) -> bytes:
        piece: bytes = await self._in_time(lambda: part.read_chunk(_PIECE))
        self._size += len(piece)
        if self._size > self._most_bytes:
            raise too_large(self._most_bytes)
        return piece

    async def _in_time(self, step: Callable[[], Awaitable[T]]) -> T:
        async with asyncio.timeout(self._idle_s):
            return await step()


async def say_go_on(request: web.BaseRequest) -> None:
    """To a client that asked whether to send its body at all."""
    if request.version >= (1, 1) and request.headers.get("expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


def too_large(most_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request's body is larger than {most_bytes} bytes, the most that this gateway takes.")
