"""A change of a key, as it is asked for and as it is kept with a request for it."""

from __future__ import annotations

from typing import Any

from forebay.wire.v1 import key_terms_pb2
from forebay_admin.keys.key_life import KeyChange
from forebay_admin.keys.key_terms import order_addresses, order_calls, order_models, order_pools, order_tokens
from forebay_admin.keys.terms_wire import audit_from
from forebay_admin.wire_forms import band_from


def change_from(request: key_terms_pb2.SetKeyTermsRequest) -> KeyChange:
    """Raises BadInput for what cannot be meant."""
    limits: dict[str, Any] = {}
    terms: dict[str, Any] = {}
    if request.HasField("allowed_models"):
        limits["allowed_models"] = order_models(request.allowed_models.words)
    if request.HasField("pools"):
        pools = order_pools(request.pools.words)
        limits["pool"], terms["other_pools"] = pools[0] if pools else "", pools[1:]
    if request.HasField("band_cap") and (band := band_from(request.band_cap)) is not None:
        limits["band_cap"] = band
    if request.HasField("denied_models"):
        terms["denied_models"] = order_models(request.denied_models.words)
    if request.HasField("addresses"):
        terms["addresses"] = order_addresses(request.addresses.words)
    if request.HasField("calls"):
        terms["calls"] = order_calls(request.calls.words)
    if request.HasField("max_output_tokens"):
        terms["max_output_tokens"] = _tokens(request.max_output_tokens, "answer")
    if request.HasField("max_context_tokens"):
        terms["max_context_tokens"] = _tokens(request.max_context_tokens, "prompt")
    if request.HasField("audit"):
        terms["audit"] = audit_from(request.audit)
    return KeyChange(
        name=request.name if request.HasField("name") else None,
        description=request.description if request.HasField("description") else None,
        put_labels=dict(request.labels),
        removed_labels=tuple(request.removed_labels),
        limits=limits,
        terms=terms,
    )


def _tokens(most: key_terms_pb2.Most, what: str) -> int | None:
    return order_tokens(most.tokens if most.HasField("tokens") else None, what)
