"""The gRPC surface that gateways call for what clients let Forebay keep: rows in Postgres, bytes of files in the blob store.

A row names its blob, so the blob comes first when a thing is added and goes last when it is removed. What a crash leaves in
between is a blob without a row, which the sweep finds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput, ForebayError, NotFound, Unavailable
from forebay.wire.v1 import content_pb2, content_pb2_grpc
from forebay_admin.content.blob_store import PIECE_BYTES, BlobStore
from forebay_admin.content.content import Blob, BlobName, ContentLimits, Thing, demand_blob
from forebay_admin.content.content_store import chain_at, demand_place, list_things, put_thing, remove_thing, thing_at
from forebay_admin.content.content_wire import most_from, page_from, place_from, thing_from, thing_to_wire
from forebay_admin.people.directory import Directory
from forebay_admin.unbroken import to_its_end

log = logging.getLogger(__name__)

_PIECE_S = 300.0
"""How long the next piece of an upload may take. Less than the age at which the sweep takes an unfinished file for left."""
_NO_NAME = BlobName("")


class ContentDesk(content_pb2_grpc.ContentServicer):
    def __init__(
        self, database: Database, directory: Directory, blobs: BlobStore, limits: ContentLimits, clock: Clock
    ) -> None:
        self._database = database
        self._directory = directory
        self._blobs = blobs
        self._limits = limits
        self._clock = clock

    async def Put(self, request: content_pb2.PutContentRequest, context: Any) -> content_pb2.PutContentResponse:
        thing = thing_from(request.item)
        self._demand_schema()
        await to_its_end(self._put(thing))
        return content_pb2.PutContentResponse()

    async def Get(self, request: content_pb2.GetContentRequest, context: Any) -> content_pb2.GetContentResponse:
        place = place_from(request)
        self._demand_schema()
        async with self._database.reading() as connection:
            thing = await thing_at(connection, place, self._now())
        return content_pb2.GetContentResponse(item=thing_to_wire(thing))

    async def GetChain(self, request: content_pb2.GetChainRequest, context: Any) -> content_pb2.GetChainResponse:
        place, most = place_from(request), most_from(request)
        self._demand_schema()
        async with self._database.reading() as connection:
            chain = await chain_at(connection, place, most, self._now())
        return content_pb2.GetChainResponse(items=[thing_to_wire(thing) for thing in chain])

    async def List(self, request: content_pb2.ListContentRequest, context: Any) -> content_pb2.ListContentResponse:
        page = page_from(request)
        self._demand_schema()
        async with self._database.reading() as connection:
            things, has_more = await list_things(connection, page, self._now())
        return content_pb2.ListContentResponse(items=[thing_to_wire(thing) for thing in things], has_more=has_more)

    async def Delete(
        self, request: content_pb2.DeleteContentRequest, context: Any
    ) -> content_pb2.DeleteContentResponse:
        place = place_from(request)
        self._demand_schema()
        async with self._database.writing() as connection:
            removed = await remove_thing(connection, place, self._now())
        await self._free(removed.blobs)
        return content_pb2.DeleteContentResponse(was_there=removed.things > 0)

    async def Upload(
        self, request_iterator: AsyncIterator[content_pb2.UploadRequest], context: Any
    ) -> content_pb2.UploadResponse:
        parts = aiter(request_iterator)
        thing, told_bytes = _opening(await _next(parts))
        self._demand_schema()
        demand_blob(told_bytes, self._limits)
        async with self._database.reading() as connection:  # what cannot be stored is refused before its bytes come
            would_be = replace(thing, blob=Blob(_NO_NAME, told_bytes))
            await demand_place(connection, would_be, self._limits, self._now())
        await context.send_initial_metadata((("forebay-accepted", "true"),))
        async with self._blobs.writing() as writer:
            size_bytes = 0
            while (part := await _next(parts)) is not None:
                piece = _piece(part)
                size_bytes += len(piece)
                demand_blob(size_bytes, self._limits)
                await writer.write(piece)
            if told_bytes and size_bytes != told_bytes:
                raise BadInput(f"{size_bytes} bytes came and blob_bytes says {told_bytes}.")
            await writer.keep()
            # To us the pieces of a client that went away end like those of one that finished; only this tells them apart.
            if context.cancelled():
                raise asyncio.CancelledError
            stored = await to_its_end(self._put(replace(thing, blob=Blob(writer.name, size_bytes))))
        return content_pb2.UploadResponse(item=thing_to_wire(stored))

    async def Download(
        self, request: content_pb2.DownloadRequest, context: Any
    ) -> AsyncIterator[content_pb2.DownloadResponse]:
        place = place_from(request)
        self._demand_schema()
        async with self._database.reading() as connection:
            thing = await thing_at(connection, place, self._now())
        if thing.blob is None:
            raise NotFound(f"The {thing.kind} {thing.id} has no bytes beside its description.")
        async with aclosing(self._blobs.read(thing.blob.name)) as pieces:
            async for piece in pieces:
                yield content_pb2.DownloadResponse(piece=piece)

    async def _put(self, thing: Thing) -> Thing:
        """As it is stored, with the blob that it had when it brings none."""
        try:
            async with self._database.writing() as connection:
                stored = await put_thing(connection, thing, self._limits, self._now())
        except Unavailable:
            raise  # it may be committed all the same: the sweep knows, later
        except ForebayError:
            await self._free([thing.blob.name] if thing.blob is not None else [])
            raise
        await self._free(stored.blobs)
        return stored.thing

    async def _free(self, blobs: Sequence[BlobName]) -> None:
        for name in blobs:
            try:
                await self._blobs.delete(name)
            except Unavailable as error:
                log.warning("blob left to the sweep", extra={"action": "blob_left", "blob": name, "why": error.message})

    def _demand_schema(self) -> None:
        if not self._directory.is_loaded:
            raise Unavailable("Admin has not read its database yet; it usually takes seconds.", retry_after_s=1.0)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


async def _next(parts: AsyncIterator[content_pb2.UploadRequest]) -> content_pb2.UploadRequest | None:
    """None at the end. Raises BadInput when it does not come."""
    try:
        async with asyncio.timeout(_PIECE_S):
            return await anext(parts, None)
    except TimeoutError:
        raise BadInput(f"The upload rested for {_PIECE_S:g} s; begin it again.") from None


def _opening(part: content_pb2.UploadRequest | None) -> tuple[Thing, int]:
    """The thing, and how many bytes it says will come: 0 when it does not say. Raises BadInput."""
    if part is None or part.WhichOneof("part") != "item":
        raise BadInput("An upload begins with the item.")
    return thing_from(part.item), part.item.blob_bytes


def _piece(part: content_pb2.UploadRequest) -> bytes:
    """Raises BadInput."""
    if part.WhichOneof("part") != "piece":
        raise BadInput("After the item come only pieces.")
    if len(part.piece) > PIECE_BYTES:
        raise BadInput(f"A piece has {len(part.piece)} bytes; {PIECE_BYTES} are the most.")
    return part.piece
