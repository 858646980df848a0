"""The models that may answer one request: the one that it asks for, and those that are asked instead. What is known of each
is gathered here; which one is next, `rules.fallbacks` decides."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from forebay.errors import ForebayError, NotAllowed, Refusal
from forebay_gateway.asked import Asked
from forebay_gateway.callers.principals import Principal
from forebay_gateway.canonical.needs import needs_of
from forebay_gateway.refused import ContextTooLong, ModelUnknown, Refused
from forebay_gateway.rules.catalogue import find_model, may_ask
from forebay_gateway.rules.fallbacks import Candidate, Fallback, Price, Why, choose, told_of, why_another
from forebay_gateway.rules.key_rules import rule_for
from forebay_gateway.serving import Means

_USUAL_OUTPUT = 256
"""Tokens of an answer whose client set no lower limit, to compare prices by."""


class HasWaited(ForebayError):
    """No slot for the model has become free in the time after which another is asked."""

    reason = Refusal.QUEUE_TIMEOUT


class Turn(NamedTuple):
    """One model's."""

    name: str
    """As the client gets to know it."""
    model: str
    """In the fleet."""
    after_s: float | None = None
    """How long it waits for a slot; None: for as long as it may."""


only_turn = lru_cache(maxsize=1024)(Turn)
"""Of a model that nobody else can answer for: nearly all are the same few again and again."""


class OtherModels:
    _first_error: ForebayError | None = None
    _left: Turn | None = None
    """It had no slot in time. It is gone back to when nobody else answers."""
    _needs: frozenset[str] = frozenset()

    def __init__(self, means: Means, principal: Principal, asked: Asked, prompt_bytes: int, *, wants_any: bool) -> None:
        """Raises NotAllowed for one that the client itself names."""
        self._means, self._principal, self._asked = means, principal, asked
        self.original = asked.model
        """What was asked for, in the fleet where that has it."""
        self._tried: dict[str, str] = {}
        """In the fleet → as it is called; in the order in which they were asked."""
        self._fallback = self._find() if wants_any else None
        self.note_prompt(prompt_bytes)

    def note_prompt(self, prompt_bytes: int) -> None:
        """The whole of it is there. What it needs is looked for now: while it waits it may be put away."""
        self._prompt_bytes = prompt_bytes
        if self._fallback is not None:
            self._needs = needs_of(self._asked.fields)

    @property
    def are_there(self) -> bool:
        """Whether any was named at all."""
        return self._fallback is not None

    def first(self, model: str) -> Turn:
        """Of the model that was asked for, by its name in the fleet."""
        self._tried[model] = self._asked.model
        self.original = model
        return Turn(self._asked.model, model, self._fallback.after_s if self._fallback is not None else None)

    def may_leave(self) -> bool:
        """Whether there is anyone to be asked instead of one that keeps waiting."""
        return self._choose(Why.WAITED) is not None

    def may_take_more(self) -> bool:
        """Whether there is anyone who might take a prompt that was too long."""
        return self._choose(Why.CONTEXT_TOO_LONG) is not None

    def forget(self) -> None:
        """The request has ended. An error knows where it was raised, and so all that was at hand there."""
        self._first_error = None

    def next(self, error: ForebayError) -> tuple[Turn, Why] | None:
        """Instead of the last one, which ended so. None: nobody is left, or another would not help."""
        self._first_error = self._first_error or error
        why = Why.WAITED if isinstance(error, HasWaited) else why_another(error)
        if why is None:
            return None
        if why is Why.WAITED:
            model, name = next(reversed(self._tried.items()))
            self._left = Turn(name, model)
        chosen = self._choose(why)
        if chosen is None:
            left, self._left = self._left, None
            return (left, why) if left is not None else None
        self._tried[chosen.model] = chosen.name
        return Turn(chosen.name, chosen.model), why

    def told(self, last: ForebayError) -> ForebayError:
        """What the client hears when nobody answered: why the first did not."""
        first = self._first_error
        asked = [name for model, name in self._tried.items() if model != self.original]
        if first is None or (asked and isinstance(first, ModelUnknown)) or isinstance(first, HasWaited):
            first = last  # that a model is not there is no reason to give up, when others stand in for it
        if not asked:
            return first
        message = told_of(first, asked)
        if isinstance(first, Refused):
            return Refused(first.word, message, retry_after_s=first.retry_after_s, standing=first.standing)
        return type(first)(message) if isinstance(first, ContextTooLong | ModelUnknown) else first

    # --- what is known of them --------------------------------------------------------------------------------------

    def _find(self) -> Fallback | None:
        asked, principal = self._asked, self._principal
        if not asked.instead and not self._means.model_rules.has_fallbacks:
            return None
        model = find_model(asked.model, principal.pool, self._means.fleet, self._means.model_rules)
        if asked.instead:
            for name in asked.instead:
                self._demand_allowed(name)
            return Fallback(asked.model, asked.instead)
        return self._means.model_rules.fallback(principal.pool, model or asked.model, asked.model)

    def _demand_allowed(self, name: str) -> None:
        model = find_model(name, self._principal.pool, self._means.fleet, self._means.model_rules) or name
        if not may_ask(self._principal, name, model):
            raise NotAllowed(f"This API key does not allow the model {name}. `GET /v1/models` lists what it allows.")

    def _choose(self, why: Why) -> Candidate | None:
        if self._fallback is None:
            return None
        refused_at = self._context_of(next(reversed(self._tried))) if self._tried else None
        return choose(self._candidates(), self._fallback.order, why, tried=self._tried, refused_at=refused_at)

    def _candidates(self) -> Iterator[Candidate]:
        assert self._fallback is not None
        means, pool = self._means, self._principal.pool
        now = means.clock.monotonic()
        for name in self._fallback.others:
            model = find_model(name, pool, means.fleet, means.model_rules)
            if model is None or not means.fleet.has(model, pool):
                continue
            prompt_tokens = means.ratios.estimate(model, self._prompt_bytes)
            output_tokens = self._asked.choices * min(self._asked.max_output_tokens or _USUAL_OUTPUT, _USUAL_OUTPUT)
            yield Candidate(
                name=name,
                model=model,
                is_well=means.fleet.is_well(model, pool),
                lacks_something=self._lacks_something(model),
                prompt_tokens=prompt_tokens,
                context_length=self._context_of(model),
                cost=means.model_rules.prices.get(model, Price()).of(prompt_tokens, output_tokens),
                first_token_s=means.first_tokens.expected_s(pool, model, now),
            )

    def _lacks_something(self, model: str) -> bool:
        """That answering this takes."""
        fleet, pool = self._means.fleet, self._principal.pool
        if not fleet.some_suit(model, pool, self._asked.suits):
            return True
        return any(fleet.lacks(model, pool, need) for need in self._needs)

    def _context_of(self, model: str) -> int | None:
        principal, generates = self._principal, self._asked.generates
        rule = rule_for(self._means.model_rules, model, principal, generates=generates)
        lengths = (
            self._means.fleet.context_length(model, principal.pool),
            rule.max_context_tokens if rule is not None else None,
        )
        return min((length for length in lengths if length), default=None)
