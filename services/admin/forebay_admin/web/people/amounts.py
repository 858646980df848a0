"""Weights, limits and moments between the wire and people's pages. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forebay.wire.v1 import admin_pb2
from forebay_admin.people import weights
from forebay_admin.web.forms import Form, WrongField

CAPS = ("requests_per_minute", "tokens_per_minute", "concurrency")
CAP_WORDS = {
    "requests_per_minute": "Requests per minute",
    "tokens_per_minute": "Tokens per minute",
    "concurrency": "Requests at once",
}
ROLES = {
    "member": admin_pb2.ROLE_MEMBER,
    "auditor": admin_pb2.ROLE_AUDITOR,
    "operator": admin_pb2.ROLE_OPERATOR,
    "admin": admin_pb2.ROLE_ADMIN,
}
ROLE_WORDS = {number: name for name, number in ROLES.items()}
_MOST_CAP = 10**15


def unix(us: int) -> float | None:
    """Seconds; None where there is no such moment."""
    return us / 1_000_000 if us else None


def weight(milli: int) -> str:
    """1500 → 1.5"""
    return f"{milli / weights.ONE:.3f}".rstrip("0").rstrip(".")


def caps_told(limits: Any) -> Mapping[str, int]:
    """Those that there are, of any message that has them."""
    return {name: getattr(limits, name) for name in CAPS if limits.HasField(name)}


def cap_of(form: Form, name: str) -> admin_pb2.Cap:
    """What is left empty is no limit. Raises WrongField."""
    if not form.get(name):
        return admin_pb2.Cap()
    return admin_pb2.Cap(most=form.whole(name, least=1, most=_MOST_CAP))


def role_of(form: Form, name: str = "role") -> admin_pb2.Role.ValueType:
    """Raises WrongField."""
    text = form.get(name, "member")
    if text not in ROLES:
        raise WrongField(name, f"There is no role {text[:40]!r}; there are {', '.join(ROLES)}.")
    return ROLES[text]
