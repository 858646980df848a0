"""Admin's side of batches, in memory: it keeps them and runs none."""

from __future__ import annotations

from typing import Any, Protocol

from forebay.errors import BadInput, NotFound, NotPossible, Unavailable
from forebay.wire.v1 import batches_pb2 as pb

_T0 = 1_800_000_000_000_000


class _Contents(Protocol):
    things: dict[tuple[str, str], Any]


class BatchesDouble:
    def __init__(self, contents: _Contents) -> None:
        self._contents = contents
        self.batches: dict[str, pb.Batch] = {}
        """The oldest first."""
        self.users: dict[str, str] = {}
        """By id of the batch, whose it is."""
        self.orders: list[pb.CreateBatchRequest] = []
        self.is_broken = False
        self.most = 100

    async def Create(self, request: pb.CreateBatchRequest, context: Any) -> pb.BatchResponse:
        self._demand_working()
        file = self._contents.things.get(("file", request.input_file_id))
        if file is None or file.user_id != request.user_id:
            raise NotFound(f"No such File object: {request.input_file_id}")
        if b'"purpose":"batch"' not in file.body:
            raise BadInput(f"The file {request.input_file_id} has another purpose.")
        if len(self.batches) >= self.most:
            raise NotPossible(f"{self.most} of your batches have not ended.")
        self.orders.append(request)
        number = len(self.batches)
        batch = pb.Batch(
            id=f"batch_{number:024x}",
            endpoint=request.endpoint,
            input_file_id=request.input_file_id,
            status="validating",
            metadata=request.metadata,
            created_at_us=_T0 + number,
            expires_at_us=_T0 + number + 86_400_000_000,
        )
        self.batches[batch.id], self.users[batch.id] = batch, request.user_id
        return pb.BatchResponse(batch=batch)

    async def Get(self, request: pb.GetBatchRequest, context: Any) -> pb.BatchResponse:
        self._demand_working()
        return pb.BatchResponse(batch=self._find(request.user_id, request.id))

    async def List(self, request: pb.ListBatchesRequest, context: Any) -> pb.ListBatchesResponse:
        self._demand_working()
        mine = [batch for batch in reversed(self.batches.values()) if self.users[batch.id] == request.user_id]
        if request.after:
            mine = mine[mine.index(self._find(request.user_id, request.after)) + 1 :]
        return pb.ListBatchesResponse(batches=mine[: request.limit], has_more=len(mine) > request.limit)

    async def Cancel(self, request: pb.CancelBatchRequest, context: Any) -> pb.BatchResponse:
        self._demand_working()
        batch = self._find(request.user_id, request.id)
        if batch.status in ("completed", "failed", "expired", "cancelled", "finalizing"):
            raise NotPossible(f"Cannot cancel a batch with status '{batch.status}'.")
        batch.status = "cancelling"
        batch.entered_at_us["cancelling"] = _T0 + 1_000_000
        return pb.BatchResponse(batch=batch)

    def _find(self, user_id: str, id: str) -> pb.Batch:
        if self.users.get(id) != user_id:
            raise NotFound(f"There is no batch {id}.")
        return self.batches[id]

    def _demand_working(self) -> None:
        if self.is_broken:
            raise Unavailable("The database is away.")
