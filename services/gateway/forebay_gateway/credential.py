"""One of the keys with which a backend is called, and what its provider can have against it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Credential:
    label: str
    secret: str = field(repr=False)


class CredentialFault(StrEnum):
    """Another credential of the same backend may do better."""

    REFUSED = "refused"
    """It is wrong, revoked, or its account is out of money: for every model."""
    FORBIDDEN = "forbidden"
    """It may not be used for this model."""
    LIMITED = "limited"
    """Its rate is reached, for this model."""
