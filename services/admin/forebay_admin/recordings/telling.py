"""What gateways are told of whose requests are kept, with each key."""

from __future__ import annotations

from forebay.wire.v1 import admin_pb2, key_terms_pb2
from forebay_admin.keys.terms_wire import audit_to_wire
from forebay_admin.recordings.policies import USUAL_PERMILLE, Policy

_SAMPLED = key_terms_pb2.AUDIT_POLICY_SAMPLED


def tell_policy(key: admin_pb2.KeyPrincipal, policy: Policy | None) -> None:
    """`policy`: of its user's group. What the key says itself goes before it."""
    own = key.terms.audit if key.HasField("terms") else key_terms_pb2.AUDIT_POLICY_UNSPECIFIED
    if not own and policy is not None:
        own = key.terms.audit = audit_to_wire(policy.audit)
    if own == _SAMPLED:
        key.terms.audit_permille = policy.permille if policy is not None else USUAL_PERMILLE
