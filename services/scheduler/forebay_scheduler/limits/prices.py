"""What tokens cost: integer micro-units of money, rounded once for each request, half up."""

from __future__ import annotations

from typing import NamedTuple

from forebay_scheduler.request import Used
from forebay_scheduler.terms import ModelTerms

_MILLION = 1_000_000


class Prices(NamedTuple):
    """Micro-units for a million tokens."""

    prompt: int = 0
    cached_prompt: int = 0
    completion: int = 0

    def expected(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Nothing is known to be cached before the engine says so."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion + _MILLION // 2) // _MILLION

    def of(self, used: Used) -> int:
        cached = min(used.cached_prompt_tokens, used.prompt_tokens)
        parts = (
            (used.prompt_tokens - cached) * self.prompt
            + cached * self.cached_prompt
            + used.completion_tokens * self.completion
        )
        return (parts + _MILLION // 2) // _MILLION


FREE = Prices()


def prices_of(terms: ModelTerms) -> Prices:
    return Prices(terms.prompt_micros, terms.cached_prompt_micros, terms.completion_micros)
