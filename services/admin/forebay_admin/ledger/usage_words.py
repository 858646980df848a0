"""By what usage is told, and how requests end, as people say it: on the command line and on pages alike. Pure."""

from __future__ import annotations

from forebay.wire.v1 import types_pb2
from forebay.wire.v1 import usage_queries_pb2 as wire

COLUMNS = {
    "user": wire.USAGE_COLUMN_USER,
    "group": wire.USAGE_COLUMN_GROUP,
    "key": wire.USAGE_COLUMN_KEY,
    "model": wire.USAGE_COLUMN_MODEL,
    "backend": wire.USAGE_COLUMN_BACKEND,
    "pool": wire.USAGE_COLUMN_POOL,
    "outcome": wire.USAGE_COLUMN_OUTCOME,
}
BUCKETS = {
    "minute": wire.USAGE_BUCKET_MINUTE,
    "hour": wire.USAGE_BUCKET_HOUR,
    "day": wire.USAGE_BUCKET_DAY,
    "week": wire.USAGE_BUCKET_WEEK,
    "month": wire.USAGE_BUCKET_MONTH,
}
ORDERS = {
    "tokens": wire.USAGE_ORDER_TOKENS,
    "requests": wire.USAGE_ORDER_REQUESTS,
    "cost": wire.USAGE_ORDER_COST,
    "duration": wire.USAGE_ORDER_DURATION,
}
OUTCOMES = {
    "finished": types_pb2.OUTCOME_FINISHED,
    "refused": types_pb2.OUTCOME_REFUSED,
    "failed": types_pb2.OUTCOME_FAILED,
    "cancelled": types_pb2.OUTCOME_CANCELLED,
    "gateway_lost": types_pb2.OUTCOME_GATEWAY_LOST,
}
