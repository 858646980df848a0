"""What the core has counted since it started. Plain integers: instruments read them, nothing here knows of any."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from forebay.errors import Refusal


@dataclass(slots=True)
class Tally:
    submits: int = 0
    grants: int = 0
    settles: int = 0
    stale_settles: int = 0
    """Told again, or of a lease that is not in force: they freed nothing."""
    cancels: int = 0
    credit_starts: int = 0
    """Requests that a gateway began on what it was lent."""
    stale_starts: int = 0
    """Of those, on credits that are not known here."""
    cutoffs: int = 0
    """Answers ended because a budget was used up."""
    nacks: int = 0
    retries: int = 0
    revokes: int = 0
    orphans: int = 0
    gateways_lost: int = 0
    rejects: Counter[Refusal] = field(default_factory=Counter)
