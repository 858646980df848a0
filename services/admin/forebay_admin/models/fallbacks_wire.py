"""Fallbacks of models as protobuf, and back. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping

from forebay.errors import BadInput
from forebay.wire.v1 import admin_pb2
from forebay_admin.models.fallbacks import Fallback, Order

_ORDERS: Mapping[Order, admin_pb2.FallbackOrder.ValueType] = {
    Order.LISTED: admin_pb2.FALLBACK_ORDER_LISTED,
    Order.CHEAPEST: admin_pb2.FALLBACK_ORDER_CHEAPEST,
    Order.SOONEST: admin_pb2.FALLBACK_ORDER_SOONEST,
}


def fallback_from(told: admin_pb2.ModelFallback) -> Fallback:
    """Raises BadInput for an order that this version does not know."""
    return Fallback(
        told.model,
        tuple(told.others),
        told.pool,
        _order_from(told.order),
        told.after_ms if told.HasField("after_ms") else None,
    )


def fallback_to_wire(fallback: Fallback) -> admin_pb2.ModelFallback:
    return admin_pb2.ModelFallback(
        model=fallback.model,
        pool=fallback.pool,
        others=fallback.others,
        order=_ORDERS[fallback.order],
        after_ms=fallback.after_ms,
    )


def _order_from(value: admin_pb2.FallbackOrder.ValueType) -> Order:
    if value == admin_pb2.FALLBACK_ORDER_UNSPECIFIED:
        return Order.LISTED
    for word in Order:
        if _ORDERS[word] == value:
            return word
    raise BadInput(f"There is no order {value}; there are {', '.join(Order)}.")
