"""Questions about usage and their answers as protobuf, and back. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping

from forebay.errors import BadInput
from forebay.wire.v1 import types_pb2, usage_queries_pb2
from forebay_admin.ledger.usage_question import Bucket, Measure, Sums
from forebay_admin.ledger.usage_rows import OUTCOMES
from forebay_admin.ledger.usage_sums import Column

_COLUMNS = {
    usage_queries_pb2.USAGE_COLUMN_KEY: Column.KEY,
    usage_queries_pb2.USAGE_COLUMN_USER: Column.USER,
    usage_queries_pb2.USAGE_COLUMN_GROUP: Column.GROUP,
    usage_queries_pb2.USAGE_COLUMN_MODEL: Column.MODEL,
    usage_queries_pb2.USAGE_COLUMN_BACKEND: Column.BACKEND,
    usage_queries_pb2.USAGE_COLUMN_POOL: Column.POOL,
    usage_queries_pb2.USAGE_COLUMN_OUTCOME: Column.OUTCOME,
}
_BUCKETS = {
    usage_queries_pb2.USAGE_BUCKET_UNSPECIFIED: Bucket.ALL,
    usage_queries_pb2.USAGE_BUCKET_MINUTE: Bucket.MINUTE,
    usage_queries_pb2.USAGE_BUCKET_HOUR: Bucket.HOUR,
    usage_queries_pb2.USAGE_BUCKET_DAY: Bucket.DAY,
    usage_queries_pb2.USAGE_BUCKET_WEEK: Bucket.WEEK,
    usage_queries_pb2.USAGE_BUCKET_MONTH: Bucket.MONTH,
}
_ORDERS = {
    usage_queries_pb2.USAGE_ORDER_UNSPECIFIED: Measure.TOKENS,
    usage_queries_pb2.USAGE_ORDER_TOKENS: Measure.TOKENS,
    usage_queries_pb2.USAGE_ORDER_REQUESTS: Measure.REQUESTS,
    usage_queries_pb2.USAGE_ORDER_COST: Measure.COST,
    usage_queries_pb2.USAGE_ORDER_DURATION: Measure.DURATION,
}
_SUMS = tuple(Sums.__slots__)
_OUTCOME_NUMBERS: Mapping[str, types_pb2.Outcome.ValueType] = {word: number for number, word in OUTCOMES.items()}


def columns_from(request: usage_queries_pb2.QueryUsageRequest) -> tuple[Column, ...]:
    """Each once. Raises BadInput."""
    unknown = next((number for number in request.by if number not in _COLUMNS), None)
    if unknown is not None:
        raise BadInput(f"Usage is not told by {unknown}: by key, user, group, model, backend, pool or outcome.")
    return tuple(dict.fromkeys(_COLUMNS[number] for number in request.by))


def bucket_from(request: usage_queries_pb2.QueryUsageRequest) -> Bucket:
    """Raises BadInput."""
    if request.bucket not in _BUCKETS:
        raise BadInput(f"There is no bucket {request.bucket}: ask by minute, hour, day, week or month.")
    return _BUCKETS[request.bucket]


def order_from(request: usage_queries_pb2.QueryUsageRequest) -> Measure:
    """Raises BadInput."""
    if request.order not in _ORDERS:
        raise BadInput(f"There is no order {request.order}: by tokens, requests, cost or duration.")
    return _ORDERS[request.order]


def outcome_from(request: usage_queries_pb2.QueryUsageRequest) -> str:
    """Empty when it is not asked for. Raises BadInput."""
    if request.outcome == types_pb2.OUTCOME_UNSPECIFIED:
        return ""
    if request.outcome not in OUTCOMES:
        raise BadInput(f"There is no outcome {request.outcome}: {', '.join(OUTCOMES.values())}.")
    return OUTCOMES[request.outcome]


def fill(line: usage_queries_pb2.UsageLine, column: Column, value: str, names: Mapping[str, str]) -> None:
    """`names` of the column's ids."""
    if column is Column.OUTCOME:
        line.outcome = _OUTCOME_NUMBERS.get(value, types_pb2.OUTCOME_UNSPECIFIED)
        return
    setattr(line, column, value)
    if column in (Column.KEY, Column.USER, Column.GROUP):
        setattr(line, column.replace("_id", "_name"), names.get(value, ""))


def sums_to_wire(sums: Sums) -> usage_queries_pb2.UsageSums:
    return usage_queries_pb2.UsageSums(**{name: getattr(sums, name) for name in _SUMS})
