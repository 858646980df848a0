"""What a model's tokens cost, and how a pool places requests. Pure; keeping them is terms_store's job."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from forebay.errors import BadInput
from forebay_admin.money.prices import MOST_MICROS
from forebay_admin.people.people import demand_name
from forebay_admin.people.weights import ONE, demand_weight

WIDEST_WINDOW = 10**8
_LONGEST_NAME = 256


class Placement(StrEnum):
    EXPECTED_TTFT = "expected_ttft"
    LEAST_LOADED = "least_loaded"
    WEIGHTED = "weighted"
    ROUND_ROBIN = "round_robin"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class ModelTerms:
    model: str
    prompt_micros: int = 0
    """Micro-units of money for a million tokens."""
    cached_prompt_micros: int = 0
    completion_micros: int = 0
    weight_milli: int = ONE
    """Its cost against other models in fairness."""


@dataclass(frozen=True, slots=True)
class PoolTerms:
    pool: str
    placement: Placement = Placement.EXPECTED_TTFT
    sticky: bool = False
    """Requests of one session stay on one backend while it is well."""
    locality_window: int | None = None
    """Tokens of weight one by which a cached prefix may jump the queue; None is the scheduler's default."""


def demand_model_terms(terms: ModelTerms) -> ModelTerms:
    """Raises BadInput."""
    demand_model_name(terms.model)
    for price in (terms.prompt_micros, terms.cached_prompt_micros, terms.completion_micros):
        if not 0 <= price <= MOST_MICROS:
            raise BadInput("A price is from 0 to 1,000,000 for a million tokens.")
    demand_weight(terms.weight_milli)
    return terms


def demand_model_name(name: str) -> str:
    """Raises BadInput."""
    if not name.strip() or name != name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
        raise BadInput(f"{name!r} is not the name of a model.")
    return name


def demand_pool_terms(terms: PoolTerms) -> PoolTerms:
    """Raises BadInput."""
    demand_name(terms.pool, "A pool's name")
    if terms.locality_window is not None and not 0 <= terms.locality_window <= WIDEST_WINDOW:
        raise BadInput(f"A locality window is from 0 (none) to {WIDEST_WINDOW} tokens.")
    return terms


def placement_named(word: str) -> Placement:
    """Raises BadInput."""
    try:
        return Placement(word)
    except ValueError as error:
        near = get_close_matches(word, list(Placement), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(Placement)}."
        raise BadInput(f"There is no placement {word}; {hint}") from error
