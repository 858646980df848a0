"""What users let Forebay keep: responses, conversations and the items in them. It lies with admin, and nowhere here.

Whoever calls names the user, and finds what is that user's and nothing else."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import grpc
import grpc.aio
import orjson

from forebay.errors import BadInput, NotFound
from forebay.rpc import Peer, as_forebay_error
from forebay.wire.v1 import content_pb2, content_pb2_grpc
from forebay_gateway.refused import StateUnavailable

log = logging.getLogger(__name__)

_WITHIN_S = 5.0
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
        request = content_pb2.DeleteContentRequest(user_id=user_id, kind=kind, id=id)
        return bool((await self._ask(self._stub.Delete, request)).was_there)

    async def _ask(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, metadata=self._metadata, timeout=_WITHIN_S)
        except grpc.aio.AioRpcError as error:
            if error.code() in _ANSWERS:
                raise as_forebay_error(error) from error
            log.info(
                "kept content out of reach",
                extra={"action": "content_unavailable", "code": error.code().name, "why": error.details()},
            )
            raise StateUnavailable from error


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
    )
