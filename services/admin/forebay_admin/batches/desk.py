"""The gRPC surface that gateways call for their users' batches. Running them is the runner's."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput, NotFound, Unavailable
from forebay.wire.v1 import batches_pb2, batches_pb2_grpc
from forebay_admin.batches.batch import WINDOW, Batch, Status, demand_cancellable, demand_input, demand_order
from forebay_admin.batches.store import add_batch, batch_at, enter, list_batches, lock_batch
from forebay_admin.batches.wire import batch_to_wire, order_from
from forebay_admin.content.content import Kind, Place, demand_id
from forebay_admin.content.content_store import thing_at
from forebay_admin.people.directory import Directory
from forebay_admin.unbroken import to_its_end

MOST_ON_A_PAGE = 100
_USUALLY_ON_A_PAGE = 20


class BatchesDesk(batches_pb2_grpc.BatchesServicer):
    def __init__(
        self,
        database: Database,
        directory: Directory,
        clock: Clock,
        *,
        most_unfinished: int,
        on_change: Callable[[], None],
    ) -> None:
        """`most_unfinished`: of one user. `on_change`: there is something to look at, here if this replica runs batches."""
        self._database = database
        self._directory = directory
        self._clock = clock
        self._most_unfinished = most_unfinished
        self._on_change = on_change

    async def Create(self, request: batches_pb2.CreateBatchRequest, context: Any) -> batches_pb2.BatchResponse:
        order = demand_order(order_from(request))
        self._demand_schema()
        principal = self._directory.find(order.key_id)
        if principal is None or principal.user_id != order.user_id:
            raise BadInput(f"The key {order.key_id} is not one of the user {order.user_id}.")
        now = self._now()
        batch = Batch(f"batch_{secrets.token_hex(12)}", order, Status.VALIDATING, now, now + WINDOW)
        await to_its_end(self._add(batch))
        self._on_change()
        return batches_pb2.BatchResponse(batch=batch_to_wire(batch))

    async def Get(self, request: batches_pb2.GetBatchRequest, context: Any) -> batches_pb2.BatchResponse:
        user_id, id = demand_id("user_id", request.user_id), demand_id("id", request.id)
        self._demand_schema()
        async with self._database.reading() as connection:
            batch = await batch_at(connection, user_id, id)
        return batches_pb2.BatchResponse(batch=batch_to_wire(batch))

    async def List(self, request: batches_pb2.ListBatchesRequest, context: Any) -> batches_pb2.ListBatchesResponse:
        user_id = demand_id("user_id", request.user_id)
        after = demand_id("after", request.after) if request.after else None
        if request.limit > MOST_ON_A_PAGE:
            raise BadInput(f"limit may be {MOST_ON_A_PAGE} at most.")
        self._demand_schema()
        async with self._database.reading() as connection:
            found, has_more = await list_batches(
                connection, user_id, limit=request.limit or _USUALLY_ON_A_PAGE, after=after
            )
        return batches_pb2.ListBatchesResponse(batches=[batch_to_wire(batch) for batch in found], has_more=has_more)

    async def Cancel(self, request: batches_pb2.CancelBatchRequest, context: Any) -> batches_pb2.BatchResponse:
        user_id, id = demand_id("user_id", request.user_id), demand_id("id", request.id)
        self._demand_schema()
        batch = await to_its_end(self._cancel(user_id, id))
        self._on_change()
        return batches_pb2.BatchResponse(batch=batch_to_wire(batch))

    async def _add(self, batch: Batch) -> None:
        order = batch.order
        async with self._database.writing() as connection:
            try:
                file = await thing_at(
                    connection, Place(order.user_id, Kind.FILE, order.input_file_id), batch.created_at
                )
            except NotFound as error:
                raise NotFound(f"No such File object: {order.input_file_id}") from error
            purpose = orjson.loads(file.body).get("purpose")
            demand_input(purpose, file.blob.size_bytes if file.blob is not None else 0, order.input_file_id)
            await add_batch(connection, batch, self._most_unfinished)

    async def _cancel(self, user_id: str, id: str) -> Batch:
        async with self._database.writing() as connection:
            await batch_at(connection, user_id, id)
            batch = await lock_batch(connection, id)
            demand_cancellable(batch)
            if batch.status is Status.CANCELLING:
                return batch
            return await enter(connection, batch, Status.CANCELLING, self._now())

    def _demand_schema(self) -> None:
        if not self._directory.is_loaded:
            raise Unavailable("Admin has not read its database yet; it usually takes seconds.", retry_after_s=1.0)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)
