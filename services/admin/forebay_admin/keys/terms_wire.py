"""A key's terms as protobuf, and back."""

from __future__ import annotations

from forebay.errors import BadInput
from forebay.wire.v1 import key_terms_pb2
from forebay_admin.keys.key_terms import NO_TERMS, AuditPolicy, KeyTerms, order_terms

_AUDITS = {
    AuditPolicy.OFF: key_terms_pb2.AUDIT_POLICY_OFF,
    AuditPolicy.METADATA: key_terms_pb2.AUDIT_POLICY_METADATA,
    AuditPolicy.FULL: key_terms_pb2.AUDIT_POLICY_FULL,
    AuditPolicy.SAMPLED: key_terms_pb2.AUDIT_POLICY_SAMPLED,
}


def terms_to_wire(terms: KeyTerms) -> key_terms_pb2.KeyTerms | None:
    """None where they restrict nothing."""
    if terms == NO_TERMS:
        return None
    return key_terms_pb2.KeyTerms(
        denied_models=terms.denied_models,
        other_pools=terms.other_pools,
        addresses=terms.addresses,
        calls=terms.calls,
        max_output_tokens=terms.max_output_tokens,
        max_context_tokens=terms.max_context_tokens,
        audit=_AUDITS[terms.audit] if terms.audit is not None else key_terms_pb2.AUDIT_POLICY_UNSPECIFIED,
    )


def terms_from(told: key_terms_pb2.KeyTerms) -> KeyTerms:
    """Raises BadInput for what cannot be meant."""
    return order_terms(
        denied_models=told.denied_models,
        other_pools=told.other_pools,
        addresses=told.addresses,
        calls=told.calls,
        max_output_tokens=told.max_output_tokens if told.HasField("max_output_tokens") else None,
        max_context_tokens=told.max_context_tokens if told.HasField("max_context_tokens") else None,
        audit=audit_from(told.audit),
    )


def audit_to_wire(policy: AuditPolicy) -> key_terms_pb2.AuditPolicy.ValueType:
    return _AUDITS[policy]


def audit_from(value: key_terms_pb2.AuditPolicy.ValueType) -> AuditPolicy | None:
    """None when it was not given. Raises BadInput for one that this version does not know."""
    if value == key_terms_pb2.AUDIT_POLICY_UNSPECIFIED:
        return None
    for policy, number in _AUDITS.items():
        if number == value:
            return policy
    raise BadInput(f"There is no audit policy {value}; there are {', '.join(AuditPolicy)}.")
