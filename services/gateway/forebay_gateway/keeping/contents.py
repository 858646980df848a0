"""What users let Forebay keep: responses, conversations and the items in them, files. It lies with admin, and nowhere here.

Whoever calls names the user, and finds what is that user's and nothing else."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeVar

import grpc
import grpc.aio
import orjson

from forebay.errors import BadInput, ForebayError, NotFound, Refusal
from forebay.rpc import Peer, as_forebay_error
from forebay.wire.v1 import content_pb2, content_pb2_grpc
from forebay_gateway.refused import BodyTooLarge, StateUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

PIECE_BYTES = 256 * 1024
"""The most that admin takes at once."""
_WITHIN_S = 5.0
_ACCEPTED = "forebay-accepted"
_TRIES = 3
_PIECE_S = 30.0
"""How long the next piece of a file may take, either way."""
_DISCONNECTED = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)
_ANSWERS = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT)
"""What a client can hear of. Of everything else, such as a token that admin does not know, it can only be told that what is
kept is out of reach."""


_ID = re.compile(r"[\w-]{1,128}", re.ASCII)
"""How ids look here. What looks otherwise is not there, and a database may stumble over it."""


class Kind(StrEnum):
    RESPONSE = "response"
    CONVERSATION = "conversation"
    ITEM = "item"
    FILE = "file"
    BACKGROUND = "background"
    """What gateways tell one another of responses that are under way."""


@dataclass(frozen=True, slots=True)
class StoredContent:
    kind: Kind
    id: str
    user_id: str
    created_at_us: int
    """Since the epoch."""
    body: dict[str, Any]
    parent_id: str = ""
    """What it follows or lies in."""
    expires_at_us: int | None = None
    blob_bytes: int = 0
    """Of a file, which lie beside the body."""
    body_bytes: int = field(default=0, compare=False)
    """Of the body as it came from where it is kept; 0 of one that has not been there."""


@dataclass(frozen=True, slots=True)
class ContentPage:
    contents: list[StoredContent]
    has_more: bool


class ContentStore(Protocol):
    """Every call raises StateUnavailable when nobody answers, within seconds."""

    @property
    def is_away(self) -> bool:
        """As far as is known without asking."""
        ...

    async def put(self, content: StoredContent) -> None:
        """Replaces what has this kind and id. Raises NotPossible when the user keeps too much, BadInput."""
        ...

    async def get(self, user_id: str, kind: Kind, id: str) -> StoredContent | None: ...

    async def chain(self, user_id: str, kind: Kind, id: str, most: int) -> Sequence[StoredContent]:
        """It and those before it, the oldest first; empty when one of them is not there. Raises NotPossible when there are
        more, or more than fits into one answer."""
        ...

    async def list(
        self, user_id: str, kind: Kind, parent_id: str, *, limit: int, after: str = "", descending: bool = False
    ) -> ContentPage:
        """What lies in the parent, by time. `after`: the id after which the page begins. Raises NotFound when it is not
        there."""
        ...

    async def delete(self, user_id: str, kind: Kind, id: str) -> bool:
        """And what lies in it. False when it was not there."""
        ...

    async def upload(self, content: StoredContent, pieces: AsyncIterator[bytes]) -> StoredContent:
        """`pieces`: the `blob_bytes` of it, none longer than PIECE_BYTES. Gives it as it is kept; unless it returns, nothing
        is as a rule. Raises BodyTooLarge, NotPossible when the user keeps too much or no files are kept, BadInput."""
        ...

    def download(self, user_id: str, kind: Kind, id: str) -> AsyncGenerator[bytes, None]:
        """As fast as they are taken. Raises NotFound."""
        ...


class AdminContents:
    def __init__(self, peer: Peer) -> None:
        self._stub: Any = content_pb2_grpc.ContentStub(peer.channel)
        self._channel = peer.channel
        self._metadata = peer.metadata

    @property
    def is_away(self) -> bool:
        return self._channel.get_state() in _DISCONNECTED  # the watches of keys and credentials keep it connected

    async def put(self, content: StoredContent) -> None:
        await self._ask(self._stub.Put, content_pb2.PutContentRequest(item=_to_wire(content)))

    async def get(self, user_id: str, kind: Kind, id: str) -> StoredContent | None:
        if not _ID.fullmatch(id):
            return None
        request = content_pb2.GetContentRequest(user_id=user_id, kind=kind, id=id)
        try:
            return _from_wire((await self._ask(self._stub.Get, request)).item)
        except NotFound:
            return None

    async def chain(self, user_id: str, kind: Kind, id: str, most: int) -> Sequence[StoredContent]:
        if not _ID.fullmatch(id):
            return []
        request = content_pb2.GetChainRequest(user_id=user_id, kind=kind, id=id, most=most)
        try:
            return [_from_wire(item) for item in (await self._ask(self._stub.GetChain, request)).items]
        except NotFound:
            return []

    async def list(
        self, user_id: str, kind: Kind, parent_id: str, *, limit: int, after: str = "", descending: bool = False
    ) -> ContentPage:
        if after and not _ID.fullmatch(after):
            raise NotFound
        request = content_pb2.ListContentRequest(
            user_id=user_id, kind=kind, parent_id=parent_id, limit=limit, after=after, descending=descending
        )
        page = await self._ask(self._stub.List, request)
        return ContentPage([_from_wire(item) for item in page.items], page.has_more)

    async def delete(self, user_id: str, kind: Kind, id: str) -> bool:
        if not _ID.fullmatch(id):
            return False
        request = content_pb2.DeleteContentRequest(user_id=user_id, kind=kind, id=id)
        return bool((await self._ask(self._stub.Delete, request)).was_there)

    async def upload(self, content: StoredContent, pieces: AsyncIterator[bytes]) -> StoredContent:
        opening = content_pb2.UploadRequest(item=_to_wire(content))
        call: Any = None
        try:
            call, is_accepted = await self._open_upload(opening)
            if is_accepted:
                async for piece in pieces:
                    await _in_time(call.write(content_pb2.UploadRequest(piece=piece)))
                await _in_time(call.done_writing())
            return _from_wire((await _in_time(call)).item)
        except grpc.aio.AioRpcError as error:
            raise _as_answer(error) from error
        except asyncio.InvalidStateError as error:  # it was ended in the middle
            raise StateUnavailable from error
        finally:
            if call is not None:
                call.cancel()  # of one that is whole it means nothing

    async def _open_upload(self, opening: content_pb2.UploadRequest) -> tuple[Any, bool]:
        """The call, and whether admin accepted it: else it has ended, and its status says why."""
        tries_left = _TRIES
        while True:
            call = self._stub.Upload(metadata=self._metadata)
            tries_left -= 1
            try:
                await _in_time(call.write(opening))
                return call, _is_accepted(await _in_time(call.initial_metadata()))
            except BaseException as error:
                call.cancel()
                # A refusal that overtakes the end of the write makes that fail instead, and what it said is lost.
                is_lost = isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.INTERNAL
                if not is_lost or not tries_left:
                    raise

    async def download(self, user_id: str, kind: Kind, id: str) -> AsyncGenerator[bytes, None]:
        if not _ID.fullmatch(id):
            raise NotFound
        request = content_pb2.DownloadRequest(user_id=user_id, kind=kind, id=id)
        call = self._stub.Download(request, metadata=self._metadata)
        try:
            while (answer := await _in_time(call.read())) is not grpc.aio.EOF:
                yield answer.piece
        except grpc.aio.AioRpcError as error:
            raise _as_answer(error) from error
        finally:
            call.cancel()

    async def _ask(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, metadata=self._metadata, timeout=_WITHIN_S)
        except grpc.aio.AioRpcError as error:
            raise _as_answer(error) from error


def _is_accepted(metadata: Iterable[tuple[str, object]] | None) -> bool:
    return any(name == _ACCEPTED for name, _ in metadata or ())


async def _in_time(step: Awaitable[T]) -> T:
    """Raises StateUnavailable."""
    try:
        async with asyncio.timeout(_PIECE_S):
            return await step
    except TimeoutError as error:
        raise StateUnavailable from error


def _as_answer(error: grpc.aio.AioRpcError) -> ForebayError:
    if error.code() not in _ANSWERS:
        log.info(
            "kept content out of reach",
            extra={"action": "content_unavailable", "code": error.code().name, "why": error.details()},
        )
        return StateUnavailable()
    told = {name: value for name, value in error.trailing_metadata() or ()}
    if told.get("forebay-reason") == Refusal.BODY_TOO_LARGE:
        return BodyTooLarge(error.details())
    return as_forebay_error(error)


def _to_wire(content: StoredContent) -> content_pb2.ContentItem:
    """Raises BadInput."""
    try:
        body = orjson.dumps(content.body)
    except orjson.JSONEncodeError as error:
        raise BadInput(f"This cannot be kept: {error}.") from error
    return content_pb2.ContentItem(
        kind=content.kind,
        id=content.id,
        user_id=content.user_id,
        parent_id=content.parent_id,
        created_at_us=content.created_at_us,
        expires_at_us=content.expires_at_us,
        body=body,
        blob_bytes=content.blob_bytes,
    )


def _from_wire(item: content_pb2.ContentItem) -> StoredContent:
    return StoredContent(
        kind=Kind(item.kind),
        id=item.id,
        user_id=item.user_id,
        created_at_us=item.created_at_us,
        body=orjson.loads(item.body),
        parent_id=item.parent_id,
        expires_at_us=item.expires_at_us if item.HasField("expires_at_us") else None,
        blob_bytes=item.blob_bytes,
        body_bytes=len(item.body),
    )
