"""What a request costs in fairness: milli-tokens of an ordinary model, whole numbers. Money is another matter (limits).

A prompt token costs one, a cached one a tenth, one that is generated two: about what each takes of an engine. How much will
be generated is guessed from what this model's answers were lately. Not from the user's own: between users the means hardly
differ, and the noise of a guess per user costs more fairness than it gains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from forebay_scheduler.fairness.shares import as_weight
from forebay_scheduler.request import Request, Used
from forebay_scheduler.terms import ModelTerms


@dataclass(frozen=True, slots=True)
class CostRules:
    prompt_milli: int = 1000
    cached_prompt_milli: int = 100
    completion_milli: int = 2000
    memory: float = 0.05
    """How much the newest answer counts in the mean of a model's lengths."""
    first_guess_tokens: float = 256.0
    """Of a model that has answered nothing yet."""


class CostModel:
    """A model nobody weighed has weight one."""

    def __init__(self, rules: CostRules | None = None) -> None:
        self._rules = rules or CostRules()
        self._prompt = float(self._rules.prompt_milli)
        self._cached_prompt = float(self._rules.cached_prompt_milli)
        self._completion = float(self._rules.completion_milli)
        self._weights: dict[str, float] = {}
        self._lengths: dict[str, float] = {}

    def change(self, models: Iterable[ModelTerms] = (), removed_models: Iterable[str] = ()) -> None:
        for terms in models:
            self._weights[terms.model] = as_weight(terms.weight)
        for model in removed_models:
            self._weights.pop(model, None)

    def estimate(self, request: Request, cached_tokens: int = 0) -> int:
        """What to reserve at the grant."""
        answers = request.width * self.expected_output(request)
        return self._milli(request.model, request.prompt_tokens, cached_tokens, answers)

    def so_far(self, request: Request, cached_tokens: int, completion_tokens: int) -> int:
        """What it has cost already, at least: the measure of an overrun."""
        return self._milli(request.model, request.prompt_tokens, cached_tokens, completion_tokens)

    def actual(self, request: Request, used: Used) -> int:
        return self._milli(request.model, used.prompt_tokens, used.cached_prompt_tokens, used.completion_tokens)

    def learn(self, model: str, completion_tokens: int) -> None:
        """An answer came to its own end after so many."""
        mean = self._lengths.get(model, self._rules.first_guess_tokens)
        self._lengths[model] = mean + self._rules.memory * (max(0, completion_tokens) - mean)

    def expected_output(self, request: Request) -> int:
        mean = self._lengths.get(request.model, self._rules.first_guess_tokens)
        allowed = request.max_output_tokens
        # The limit alone is a poor guess: clients ask for far more than they read.
        return allowed if 0 < allowed < mean else int(mean + 0.5)

    def lengths(self) -> Mapping[str, float]:
        """The mean completion tokens by model, for the snapshot."""
        return dict(self._lengths)

    def restore_lengths(self, lengths: Mapping[str, float]) -> None:
        self._lengths.update(lengths)

    def _milli(self, model: str, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> int:
        if cached_tokens > prompt_tokens:
            cached_tokens = prompt_tokens
        plain = (
            self._prompt * (prompt_tokens - cached_tokens)
            + self._cached_prompt * cached_tokens
            + self._completion * completion_tokens
        )
        return int(plain * self._weights.get(model, 1.0) + 0.5)
