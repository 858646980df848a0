"""Aliases, rules, fallbacks and prices of models, from admin. All of them come whenever one has changed."""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping
from typing import Any

import orjson
from google.protobuf.message import DecodeError

from forebay.rpc import Peer
from forebay.wire.v1 import admin_pb2, admin_pb2_grpc
from forebay_gateway.rules.fallbacks import Fallback, Order, Price
from forebay_gateway.rules.model_rules import Alias, ModelRules, Rule, ScopedRule, ScopeKind, Structured

_KINDS = {"pool": ScopeKind.POOL, "model": ScopeKind.MODEL, "key_id": ScopeKind.KEY}
_THINKS_UNASKED = {admin_pb2.MODEL_THINKING_OFF: False, admin_pb2.MODEL_THINKING_USUAL: True}

_STRUCTURED = {
    admin_pb2.STRUCTURED_OUTPUT_TRUST: Structured.TRUST,
    admin_pb2.STRUCTURED_OUTPUT_CHECK: Structured.CHECK,
    admin_pb2.STRUCTURED_OUTPUT_ASK_AGAIN: Structured.ASK_AGAIN,
}

_ORDERS = {admin_pb2.FALLBACK_ORDER_CHEAPEST: Order.CHEAPEST, admin_pb2.FALLBACK_ORDER_SOONEST: Order.SOONEST}


class ModelRulesWatch:
    name = "model_rules"
    owner = "admin"

    def __init__(self, peer: Peer, rules: ModelRules) -> None:
        self._stub: Any = admin_pb2_grpc.AdminStub(peer.channel)
        self._metadata = peer.metadata
        self._rules = rules
        self._version = 0
        self._wire = admin_pb2.ModelRulesUpdate(snapshot=True)
        """As it came, to be kept on disk with every field, those that this version does not know included."""

    def watch(self) -> AsyncIterable[admin_pb2.ModelRulesUpdate]:
        request = admin_pb2.WatchRequest(known_version=self._version)
        calls: AsyncIterable[admin_pb2.ModelRulesUpdate] = self._stub.WatchModelRules(request, metadata=self._metadata)
        return calls

    def apply(self, update: admin_pb2.ModelRulesUpdate) -> None:
        self._version = update.version
        if update.snapshot:
            self._rules.replace_all(
                [Alias(alias.alias, alias.model, alias.pool) for alias in update.aliases],
                [_scoped(rule) for rule in update.rules if rule.scope.WhichOneof("of") is not None],
                update.version,
                [_fallback(fallback) for fallback in update.fallbacks],
                {terms.model: Price(terms.prompt_micros, terms.completion_micros) for terms in update.prices},
            )
            self._wire = update

    def dump(self) -> bytes:
        kept = admin_pb2.ModelRulesUpdate()
        kept.CopyFrom(self._wire)
        kept.version = self._version
        return kept.SerializeToString()

    def restore(self, kept: bytes) -> None:
        try:
            update = admin_pb2.ModelRulesUpdate.FromString(kept)
        except DecodeError as error:
            raise ValueError(str(error)) from error
        self.apply(update)


def _scoped(told: admin_pb2.ModelRule) -> ScopedRule:
    field = told.scope.WhichOneof("of") or "everyone"
    rule = Rule(
        _values(told.defaults),
        _values(told.pinned),
        told.max_output_tokens if told.HasField("max_output_tokens") else None,
        told.num_ctx if told.HasField("num_ctx") else None,
        told.keep_alive_s if told.HasField("keep_alive_s") else None,
        _THINKS_UNASKED.get(told.thinking),
        structured=_STRUCTURED.get(told.structured),
        max_context_tokens=told.max_context_tokens if told.HasField("max_context_tokens") else None,
    )
    if field == "everyone":
        return ScopedRule(ScopeKind.EVERYONE, "", rule)
    return ScopedRule(_KINDS[field], getattr(told.scope, field), rule)


def _fallback(told: admin_pb2.ModelFallback) -> Fallback:
    return Fallback(
        told.model,
        tuple(told.others),
        told.pool,
        _ORDERS.get(told.order, Order.LISTED),
        told.after_ms / 1000 if told.HasField("after_ms") else None,
    )


def _values(fields: Mapping[str, str]) -> dict[str, Any]:
    """Raises ValueError for what is not JSON, which admin refuses."""
    return {name: orjson.loads(fields[name]) for name in sorted(fields)}
