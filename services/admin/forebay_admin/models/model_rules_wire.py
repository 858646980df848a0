"""Aliases and rules of models as protobuf, and back. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping

from forebay.errors import BadInput
from forebay.wire.v1 import admin_pb2
from forebay_admin.models.model_rules import Alias, Rule, Scope, ScopeKind, Structured, Thinking

_THINKING: Mapping[Thinking | None, admin_pb2.ModelThinking.ValueType] = {
    Thinking.OFF: admin_pb2.MODEL_THINKING_OFF,
    Thinking.USUAL: admin_pb2.MODEL_THINKING_USUAL,
}
_STRUCTURED: Mapping[Structured | None, admin_pb2.StructuredOutput.ValueType] = {
    Structured.TRUST: admin_pb2.STRUCTURED_OUTPUT_TRUST,
    Structured.CHECK: admin_pb2.STRUCTURED_OUTPUT_CHECK,
    Structured.ASK_AGAIN: admin_pb2.STRUCTURED_OUTPUT_ASK_AGAIN,
}
_KINDS = {"pool": ScopeKind.POOL, "model": ScopeKind.MODEL, "key_id": ScopeKind.KEY}


def thinking_from(value: admin_pb2.ModelThinking.ValueType) -> Thinking | None:
    """None when the rule is to say nothing about it. Raises BadInput for one that this version does not know."""
    if value == admin_pb2.MODEL_THINKING_UNSPECIFIED:
        return None
    for word in Thinking:
        if _THINKING[word] == value:
            return word
    raise BadInput(f"There is no way of thinking {value}; there are {', '.join(Thinking)}.")


def structured_from(value: admin_pb2.StructuredOutput.ValueType) -> Structured | None:
    """None when the rule is to say nothing about it. Raises BadInput for one that this version does not know."""
    if value == admin_pb2.STRUCTURED_OUTPUT_UNSPECIFIED:
        return None
    for word in Structured:
        if _STRUCTURED[word] == value:
            return word
    raise BadInput(f"There is no such way with structured output, {value}; there are {', '.join(Structured)}.")


def scope_from(told: admin_pb2.ModelRuleScope) -> Scope:
    """A key as it was named. Raises BadInput for a scope without a name, and for none that this version knows."""
    field = told.WhichOneof("of")
    if field is None:
        raise BadInput("Say for whom the rule is: everyone, a pool, a model or a key.")
    if field == "everyone":
        return Scope()
    kind, name = _KINDS[field], getattr(told, field)
    if not name:
        raise BadInput(f"Say which {kind} the rule is for.")
    return Scope(kind, name)


def scope_to_wire(scope: Scope) -> admin_pb2.ModelRuleScope:
    match scope.kind:
        case ScopeKind.POOL:
            return admin_pb2.ModelRuleScope(pool=scope.name)
        case ScopeKind.MODEL:
            return admin_pb2.ModelRuleScope(model=scope.name)
        case ScopeKind.KEY:
            return admin_pb2.ModelRuleScope(key_id=scope.name)
    return admin_pb2.ModelRuleScope(everyone=True)


def alias_from(told: admin_pb2.ModelAlias) -> Alias:
    return Alias(told.alias, told.model, told.pool)


def alias_to_wire(alias: Alias) -> admin_pb2.ModelAlias:
    return admin_pb2.ModelAlias(alias=alias.alias, model=alias.model, pool=alias.pool)


def rule_to_wire(rule: Rule) -> admin_pb2.ModelRule:
    return admin_pb2.ModelRule(
        scope=scope_to_wire(rule.scope),
        defaults=rule.defaults,
        pinned=rule.pinned,
        max_output_tokens=rule.max_output_tokens,
        num_ctx=rule.num_ctx,
        keep_alive_s=rule.keep_alive_s,
        thinking=_THINKING.get(rule.thinking, admin_pb2.MODEL_THINKING_UNSPECIFIED),
        max_context_tokens=rule.max_context_tokens,
        structured=_STRUCTURED.get(rule.structured, admin_pb2.STRUCTURED_OUTPUT_UNSPECIFIED),
    )
