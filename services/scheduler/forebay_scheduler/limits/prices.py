"""What tokens and requests cost: integer micro-units of money, rounded once for each request, half up.

Images, sound and hardware are charged by the ledger alone: nobody tells here how many there were."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from typing import NamedTuple

from forebay_scheduler.request import Used
from forebay_scheduler.terms import ModelTerms, PriceTerms

_MILLION = 1_000_000
_MODELS_KEPT = 10_000


class Tier(NamedTuple):
    """Of all tokens of a request whose prompt is so long."""

    from_prompt_tokens: int
    prompt: int
    cached_prompt: int
    completion: int


class Prices(NamedTuple):
    """Micro-units for a million tokens, and for a request that used any."""

    prompt: int = 0
    cached_prompt: int = 0
    completion: int = 0
    request: int = 0
    tiers: tuple[Tier, ...] = ()

    def expected(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Nothing is known to be cached before the engine says so."""
        return self._cost(prompt_tokens, 0, completion_tokens)

    def of(self, used: Used) -> int:
        if not (used.prompt_tokens or used.completion_tokens):
            return 0
        return self._cost(
            used.prompt_tokens, min(used.cached_prompt_tokens, used.prompt_tokens), used.completion_tokens
        )

    def _cost(self, prompt_tokens: int, cached: int, completion_tokens: int) -> int:
        prompt, cached_prompt, completion = self.prompt, self.cached_prompt, self.completion
        for tier in self.tiers:
            if prompt_tokens < tier.from_prompt_tokens:
                break
            prompt, cached_prompt, completion = tier.prompt, tier.cached_prompt, tier.completion
        parts = (
            (prompt_tokens - cached) * prompt
            + cached * cached_prompt
            + completion_tokens * completion
            + self.request * _MILLION
        )
        return (parts + _MILLION // 2) // _MILLION


FREE = Prices()


class PriceList:
    """An exact name goes before a pattern, and of patterns the one with more letters of its own."""

    def __init__(self) -> None:
        self._of_models: dict[str, Prices] = {}
        """As an admin tells them that knows no more."""
        self._by_name: dict[str, Prices] | None = None
        self._patterns: list[tuple[re.Pattern[str], Prices]] = []
        self._found: dict[str, Prices] = {}

    def change(
        self, models: Iterable[ModelTerms], removed: Iterable[str], prices: tuple[PriceTerms, ...] | None
    ) -> None:
        for model in removed:
            self._of_models.pop(model, None)
        for terms in models:
            self._of_models[terms.model] = Prices(
                terms.prompt_micros, terms.cached_prompt_micros, terms.completion_micros
            )
        if prices is not None:
            self._by_name = {terms.model: _prices_of(terms) for terms in prices if "*" not in terms.model}
            patterns = sorted((terms for terms in prices if "*" in terms.model), key=_narrowest_first)
            self._patterns = [(re.compile(_expression(terms.model)), _prices_of(terms)) for terms in patterns]
        self._found.clear()

    def of(self, model: str) -> Prices:
        found = self._found.get(model)
        if found is None:
            if len(self._found) >= _MODELS_KEPT:
                self._found.clear()
            found = self._found[model] = self._find(model)
        return found

    def _find(self, model: str) -> Prices:
        if self._by_name is None:
            return self._of_models.get(model, FREE)
        exact = self._by_name.get(model)
        if exact is not None:
            return exact
        for pattern, prices in self._patterns:
            if pattern.fullmatch(model):
                return prices
        return FREE


def _prices_of(terms: PriceTerms) -> Prices:
    return Prices(
        terms.prompt_micros,
        terms.cached_prompt_micros,
        terms.completion_micros,
        terms.request_micros,
        tuple(
            Tier(tier.from_prompt_tokens, tier.prompt_micros, tier.cached_prompt_micros, tier.completion_micros)
            for tier in terms.tiers
        ),
    )


def _narrowest_first(terms: PriceTerms) -> tuple[int, str]:
    return -len(terms.model.replace("*", "")), terms.model


def _expression(pattern: str) -> str:
    """Only * stands for anything: a name may hold ? and [."""
    return translate("".join(f"[{char}]" if char in "?[" else char for char in pattern))
