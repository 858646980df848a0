"""Batches as protobuf, and back. Nothing is decided here."""

from __future__ import annotations

from forebay.wire.v1 import batches_pb2
from forebay_admin.batches.batch import Batch, BatchError, Order
from forebay_admin.content.content import demand_id
from forebay_admin.wire_forms import moment_us


def order_from(request: batches_pb2.CreateBatchRequest) -> Order:
    """Raises BadInput."""
    return Order(
        user_id=demand_id("user_id", request.user_id),
        key_id=demand_id("key_id", request.key_id),
        input_file_id=demand_id("input_file_id", request.input_file_id),
        endpoint=request.endpoint,
        metadata=dict(request.metadata),
        output_expires_s=request.output_expires_s if request.HasField("output_expires_s") else None,
    )


def batch_to_wire(batch: Batch) -> batches_pb2.Batch:
    return batches_pb2.Batch(
        id=batch.id,
        endpoint=batch.order.endpoint,
        input_file_id=batch.order.input_file_id,
        status=batch.status.value,
        metadata=batch.order.metadata,
        errors=[_error_to_wire(error) for error in batch.errors],
        created_at_us=moment_us(batch.created_at),
        expires_at_us=moment_us(batch.expires_at),
        entered_at_us={status.value: moment_us(moment) for status, moment in batch.entered_at.items()},
        output_file_id=batch.output_file_id or "",
        error_file_id=batch.error_file_id or "",
        total=batch.counts.total,
        completed=batch.counts.completed,
        failed=batch.counts.failed,
    )


def _error_to_wire(error: BatchError) -> batches_pb2.BatchError:
    return batches_pb2.BatchError(code=error.code, message=error.message, line=error.line, param=error.param)
