"""Which model is asked instead of one that does not answer. Pure: facts in, a choice out.

Each model is asked once for one request, and what is asked instead of another has no fallbacks of its own, so nothing goes
round in a circle."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from forebay.errors import ForebayError, Refusal
from forebay_gateway.refused import ContextTooLong, ModelUnknown, Refused

FAR_ABOVE = 1.5
"""A prompt that is estimated at so many times a model's context is not sent there. Estimates err; this far only of texts
that are nothing like those before, and then the engine's own refusal says so."""


class Order(StrEnum):
    LISTED = "listed"
    CHEAPEST = "cheapest"
    SOONEST = "soonest"


@dataclass(frozen=True, slots=True)
class Fallback:
    """What an operator, or the client itself, wants to be asked."""

    model: str
    """Its name in the fleet, or an alias."""
    others: tuple[str, ...]
    """The same."""
    pool: str = ""
    """Empty: every pool."""
    order: Order = Order.LISTED
    after_s: float | None = None
    """So long a request waits for a slot before another model is asked; None: for as long as it may."""


@dataclass(frozen=True, slots=True)
class Price:
    """Micro-units of money for a million tokens. A model without a price costs nothing."""

    prompt: int = 0
    completion: int = 0

    def of(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Micro-units of money, times a million."""
        return self.prompt * prompt_tokens + self.completion * completion_tokens


class Why(StrEnum):
    """Another model is asked."""

    NO_BACKEND = "no_backend"
    """None that has it is well, or none has it."""
    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    """No slot by the request's deadline, or none foreseen."""
    ENGINE_FAILED = "engine_failed"
    """Every attempt failed before the first byte."""
    CONTEXT_TOO_LONG = "context_too_long"
    WAITED = "waited"
    """It has waited for a slot for as long as the fallback says."""


@dataclass(frozen=True, slots=True)
class Candidate:
    name: str
    """As the operator, or the client, calls it."""
    model: str
    """Its name in the fleet."""
    is_well: bool = True
    """Some backend that has it is not unhealthy."""
    lacks_something: bool = False
    """It is known that it cannot do what the request needs."""
    prompt_tokens: int = 0
    """Estimated, by its own ratio."""
    context_length: int | None = None
    """Tokens that a prompt may have, as far as is known."""
    cost: int = 0
    """In any unit, the same for all."""
    first_token_s: float | None = None
    """From asking to the first token, as seen lately."""


def why_another(error: ForebayError) -> Why | None:
    """None: another model would not help, or may not."""
    match error:
        case ModelUnknown():
            return Why.NO_BACKEND
        case ContextTooLong():
            return Why.CONTEXT_TOO_LONG
        case Refused():
            # A provider's limit is told as the client's own would be; what the scheduler said is behind it.
            behind = error.__cause__
            return _WORDS.get(behind.word if isinstance(behind, Refused) else error.word)
    return None


_WORDS = {
    Refusal.NO_BACKEND: Why.NO_BACKEND,
    Refusal.QUEUE_FULL: Why.QUEUE_FULL,
    Refusal.QUEUE_TIMEOUT: Why.QUEUE_TIMEOUT,
    Refusal.ENGINE_FAILED: Why.ENGINE_FAILED,
}


def choose(
    candidates: Iterable[Candidate],
    order: Order,
    why: Why,
    *,
    tried: Collection[str],
    refused_at: int | None = None,
) -> Candidate | None:
    """`tried`: names in the fleet. `refused_at`: the context, in tokens, of the model for which the prompt was too long, if
    that is known."""
    able = [one for one in candidates if one.model not in tried and one.is_well and not one.lacks_something]
    able = [one for one in able if _has_room(one, why, refused_at)]
    return min(able, key=lambda one: _rank(one, order), default=None)  # the first of equals


def _has_room(one: Candidate, why: Why, refused_at: int | None) -> bool:
    if one.context_length is None:
        return why is not Why.CONTEXT_TOO_LONG
    if one.prompt_tokens > FAR_ABOVE * one.context_length:
        return False
    if why is not Why.CONTEXT_TOO_LONG:
        return True
    return one.context_length > (refused_at if refused_at is not None else one.prompt_tokens)


def _rank(one: Candidate, order: Order) -> float:
    match order:
        case Order.CHEAPEST:
            return one.cost
        case Order.SOONEST:
            return one.first_token_s if one.first_token_s is not None else math.inf
    return 0.0


def told_of(error: ForebayError, asked: Sequence[str]) -> str:
    """What the client reads when `asked` did not answer either."""
    return f"{error.message} Asked instead, and without success: {', '.join(asked)}."
