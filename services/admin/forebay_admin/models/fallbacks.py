"""Which models are asked instead of one that does not answer. Pure; keeping that is fallbacks_store's job, and doing it the
gateway's."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from forebay.errors import BadInput
from forebay_admin.models.terms import demand_model_name
from forebay_admin.people.people import demand_name

MOST_OTHERS = 16
LONGEST_WAIT_MS = 24 * 3600 * 1000


class Order(StrEnum):
    """In which the others are asked."""

    LISTED = "listed"
    CHEAPEST = "cheapest"
    SOONEST = "soonest"


@dataclass(frozen=True, slots=True)
class Fallback:
    model: str
    """Its name in the fleet, or an alias."""
    others: tuple[str, ...]
    """The same."""
    pool: str = ""
    """Empty: every pool."""
    order: Order = Order.LISTED
    after_ms: int | None = None
    """So long a request waits for a slot before another model is asked; None: for as long as it may."""


def demand_fallback(wanted: Fallback) -> Fallback:
    """Raises BadInput."""
    for name in (wanted.model, *wanted.others):
        demand_model_name(name)
    if wanted.pool:
        demand_name(wanted.pool, "A pool's name")
    if not wanted.others:
        raise BadInput(f"Say which models are asked instead of {wanted.model}.")
    if len(wanted.others) > MOST_OTHERS:
        raise BadInput(f"At most {MOST_OTHERS} models can be asked instead of one.")
    if len({wanted.model, *wanted.others}) <= len(wanted.others):
        raise BadInput("Name each model once: none is asked twice for one request.")
    if wanted.after_ms is not None and not 1 <= wanted.after_ms <= LONGEST_WAIT_MS:
        raise BadInput("A request can wait for a slot from 0.001 to 86400 seconds before another model is asked.")
    return wanted
