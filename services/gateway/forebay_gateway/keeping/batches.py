"""A user's batches, which admin keeps and runs."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import grpc.aio

from forebay.errors import NotFound
from forebay.rpc import Peer, as_forebay_error
from forebay.wire.v1 import batches_pb2, batches_pb2_grpc
from forebay_gateway.callers.principals import Principal
from forebay_gateway.canonical.dialect import Json
from forebay_gateway.dialects.openai.batch import BatchWish, KeptBatch
from forebay_gateway.refused import StateUnavailable

log = logging.getLogger(__name__)

_WITHIN_S = 5.0
_ID = re.compile(r"[\w-]{1,128}", re.ASCII)
_ANSWERS = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT)


@dataclass(frozen=True, slots=True)
class BatchPage:
    batches: Sequence[KeptBatch]
    has_more: bool


class BatchStore(Protocol):
    """Every call raises StateUnavailable when nobody answers, within seconds; and NotFound when what it names is not there,
    or another user's."""

    async def create(self, principal: Principal, wish: BatchWish) -> KeptBatch:
        """Which `principal`'s key pays. Raises BadInput when such a file is no input, NotPossible when too many run."""
        ...

    async def get(self, user_id: str, id: str) -> KeptBatch: ...

    async def list(self, user_id: str, *, limit: int, after: str) -> BatchPage:
        """The newest first."""
        ...

    async def cancel(self, user_id: str, id: str) -> KeptBatch:
        """Raises NotPossible when it has ended."""
        ...


class AdminBatches:
    def __init__(self, peer: Peer) -> None:
        self._stub: Any = batches_pb2_grpc.BatchesStub(peer.channel)
        self._metadata = peer.metadata

    async def create(self, principal: Principal, wish: BatchWish) -> KeptBatch:
        request = batches_pb2.CreateBatchRequest(
            user_id=principal.user_id,
            key_id=principal.key_id,
            input_file_id=_demand_id(wish.input_file_id),
            endpoint=wish.endpoint,
            metadata=wish.metadata,
            output_expires_s=wish.output_expires_s,
        )
        return _from_wire((await self._ask(self._stub.Create, request)).batch)

    async def get(self, user_id: str, id: str) -> KeptBatch:
        request = batches_pb2.GetBatchRequest(user_id=user_id, id=_demand_id(id))
        return _from_wire((await self._ask(self._stub.Get, request)).batch)

    async def list(self, user_id: str, *, limit: int, after: str) -> BatchPage:
        request = batches_pb2.ListBatchesRequest(user_id=user_id, limit=limit, after=_demand_id(after) if after else "")
        page = await self._ask(self._stub.List, request)
        return BatchPage([_from_wire(batch) for batch in page.batches], page.has_more)

    async def cancel(self, user_id: str, id: str) -> KeptBatch:
        request = batches_pb2.CancelBatchRequest(user_id=user_id, id=_demand_id(id))
        return _from_wire((await self._ask(self._stub.Cancel, request)).batch)

    async def _ask(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, metadata=self._metadata, timeout=_WITHIN_S)
        except grpc.aio.AioRpcError as error:
            if error.code() in _ANSWERS:
                raise as_forebay_error(error) from error
            log.info(
                "batches out of reach",
                extra={"action": "batches_unavailable", "code": error.code().name, "why": error.details()},
            )
            raise StateUnavailable(
                "Batches are out of reach at the moment; those that were made go on. Try again shortly."
            ) from error


def _demand_id(id: str) -> str:
    """Raises NotFound."""
    if not _ID.fullmatch(id):
        raise NotFound
    return id


def _from_wire(batch: batches_pb2.Batch) -> KeptBatch:
    return KeptBatch(
        id=batch.id,
        endpoint=batch.endpoint,
        input_file_id=batch.input_file_id,
        status=batch.status,
        created_at=batch.created_at_us // 1_000_000,
        expires_at=batch.expires_at_us // 1_000_000,
        metadata=dict(batch.metadata),
        entered_at={status: moment_us // 1_000_000 for status, moment_us in batch.entered_at_us.items()},
        errors=[_error_to_json(error) for error in batch.errors],
        output_file_id=batch.output_file_id or None,
        error_file_id=batch.error_file_id or None,
        total=batch.total,
        completed=batch.completed,
        failed=batch.failed,
    )


def _error_to_json(error: batches_pb2.BatchError) -> Json:
    return {
        "code": error.code,
        "line": error.line if error.HasField("line") else None,
        "message": error.message,
        "param": error.param or None,
    }
