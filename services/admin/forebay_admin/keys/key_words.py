"""What people call a key's band and what is kept of its requests: on the command line and on pages alike. Pure."""

from __future__ import annotations

from forebay.wire.v1 import key_terms_pb2, types_pb2

BANDS = {
    "system": types_pb2.BAND_SYSTEM,
    "interactive": types_pb2.BAND_INTERACTIVE,
    "standard": types_pb2.BAND_STANDARD,
    "batch": types_pb2.BAND_BATCH,
}
"""The most urgent first."""
AUDITS = {
    "off": key_terms_pb2.AUDIT_POLICY_OFF,
    "metadata": key_terms_pb2.AUDIT_POLICY_METADATA,
    "full": key_terms_pb2.AUDIT_POLICY_FULL,
    "sampled": key_terms_pb2.AUDIT_POLICY_SAMPLED,
}
