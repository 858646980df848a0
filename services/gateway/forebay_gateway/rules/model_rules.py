"""What operators say of models: other names for them, and what is done to requests on their way to an engine.

Pure: where it comes from is the watch's business. Looking up what applies to a request costs a dict look-up or two, and
nothing without rules. What a rule does to a body is told for each dialect (`ruled_fields`, `dialects/…/ruled`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import Any

from forebay_gateway.fleet import USUAL_TAG
from forebay_gateway.rules.fallbacks import Fallback, Price

Json = dict[str, Any]


class Structured(StrEnum):
    """What is done about an answer that must be JSON."""

    TRUST = "trust"
    """It passes as it is."""
    CHECK = "check"
    """One that is not what was asked for becomes an error."""
    ASK_AGAIN = "ask_again"
    """The same, but a whole answer is asked for again before."""


class ScopeKind(IntEnum):
    """Whose requests a rule is for. In this order they apply, the later over the earlier."""

    EVERYONE = 0
    POOL = 1
    MODEL = 2
    KEY = 3


@dataclass(frozen=True, slots=True)
class Rule:
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Fields of OpenAI's chat for clients who say nothing of them; `options` and `keep_alive` are Ollama's."""
    pinned: Mapping[str, Any] = field(default_factory=dict)
    """The same, whatever the client says."""
    max_output_tokens: int | None = None
    num_ctx: int | None = None
    keep_alive_s: int | None = None
    thinks_unasked: bool | None = None
    """None: the rule says nothing about it, and the model does as it is used to."""
    structured: Structured | None = None
    """None: the rule says nothing about it, and it goes by the engine."""
    max_context_tokens: int | None = None
    """Of a prompt."""

    def over(self, other: Rule) -> Rule:
        """Both, of which this one goes before the other."""
        return Rule(
            merged(other.defaults, self.defaults),
            merged(other.pinned, self.pinned),
            _first(self.max_output_tokens, other.max_output_tokens),
            _first(self.num_ctx, other.num_ctx),
            _first(self.keep_alive_s, other.keep_alive_s),
            self.thinks_unasked if self.thinks_unasked is not None else other.thinks_unasked,
            structured=self.structured or other.structured,
            max_context_tokens=_first(self.max_context_tokens, other.max_context_tokens),
        )


@dataclass(frozen=True, slots=True)
class ScopedRule:
    kind: ScopeKind
    name: str
    """Of a model: its name in the fleet, or a pattern in which * stands for anything. Of a key: its public id."""
    rule: Rule

    def is_for(self, model: str, pool: str, key_id: str) -> bool:
        match self.kind:
            case ScopeKind.POOL:
                return self.name == pool
            case ScopeKind.MODEL:
                return _matches(self.name, model)
            case ScopeKind.KEY:
                return self.name == key_id
        return True

    @property
    def place(self) -> tuple[int, bool, int, str]:
        """What is said of models more generally comes first: patterns before names, short before long."""
        return self.kind, "*" not in self.name, len(self.name.replace("*", "")), self.name


@dataclass(frozen=True, slots=True)
class Alias:
    name: str
    model: str
    pool: str = ""
    """Empty: every pool."""


class ModelRules:
    def __init__(self) -> None:
        self.version = 0
        self._aliases: dict[tuple[str, str], str] = {}
        """(pool, name) → model."""
        self.are_there = False
        """Any rules."""
        self._rules: list[ScopedRule] = []
        self._keys: set[str] = set()
        """Those that have a rule of their own."""
        self._applying: dict[tuple[str, str, str, bool], Rule | None] = {}
        """What `of` gave since the last change."""
        self._fallbacks: dict[tuple[str, str], Fallback] = {}
        """(pool, model) →"""
        self.has_fallbacks = False
        self.prices: Mapping[str, Price] = {}
        """By model."""

    def replace_all(
        self,
        aliases: Iterable[Alias],
        rules: Iterable[ScopedRule],
        version: int,
        fallbacks: Iterable[Fallback] = (),
        prices: Mapping[str, Price] | None = None,
    ) -> None:
        self._fallbacks = {(fallback.pool, fallback.model): fallback for fallback in fallbacks}
        self.has_fallbacks = bool(self._fallbacks)
        self.prices = prices or {}
        self._aliases = {(alias.pool, alias.name): alias.model for alias in aliases}
        self._rules = sorted(rules, key=lambda scoped: scoped.place)
        self._keys = {scoped.name for scoped in self._rules if scoped.kind is ScopeKind.KEY}
        self._applying.clear()
        self.are_there = bool(self._rules)
        self.version = version

    def resolve(self, name: str, pool: str) -> str | None:
        """The model that `name` is an alias of; with Ollama's tag `latest` or without. None: it is none."""
        if not self._aliases:
            return None
        other = name.removesuffix(USUAL_TAG) if name.endswith(USUAL_TAG) else f"{name}{USUAL_TAG}"
        for place in ((pool, name), ("", name), (pool, other), ("", other)):
            if place in self._aliases:
                return self._aliases[place]
        return None

    def fallback(self, pool: str, *names: str) -> Fallback | None:
        """What is asked instead of a model with these names; a pool's own before every pool's."""
        places = ((within, name) for within in (pool, "") for name in names)
        return next((self._fallbacks[place] for place in places if place in self._fallbacks), None)

    def aliases(self, pool: str) -> dict[str, str]:
        """Those that there are in this pool."""
        within = sorted(place for place in self._aliases if place[0] in ("", pool))  # a pool's own over every pool's
        return {name: self._aliases[at, name] for at, name in within}

    def of(self, model: str, pool: str, key_id: str, *, generates: bool) -> Rule | None:
        """What applies to a request. `model`: one of the fleet's. `generates`: it is a chat or a completion; others are
        touched by what is said of their model alone, and by limits on what Ollama keeps in memory."""
        if not self._rules:
            return None
        place = (model, pool, key_id if key_id in self._keys else "", generates)
        if place not in self._applying:
            self._applying[place] = self._find(model, pool, key_id, generates)
        return self._applying[place]

    def _find(self, model: str, pool: str, key_id: str, generates: bool) -> Rule | None:
        nothing = found = Rule()
        for scoped in self._rules:
            if scoped.is_for(model, pool, key_id):
                rule = scoped.rule
                if not generates and scoped.kind is not ScopeKind.MODEL:
                    rule = replace(rule, defaults={}, pinned={})
                found = rule.over(found)
        return found if found != nothing else None


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> Json:
    """Objects field by field, and everything else as `over` has it."""
    out = dict(under)
    for name, value in over.items():
        below = out.get(name)
        out[name] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return out


def filled(said: Mapping[str, Any], defaults: Mapping[str, Any]) -> Json:
    """What was said, with the defaults for what was not. A null or an empty text says nothing."""
    out = dict(said)
    for name, value in defaults.items():
        there = out.get(name)
        if is_unsaid(there):
            out[name] = value
        elif isinstance(there, dict) and isinstance(value, dict):
            out[name] = filled(there, value)
    return out


def is_unsaid(value: Any) -> bool:
    return value is None or value == ""


def _first(*numbers: int | None) -> int | None:
    return next((number for number in numbers if number is not None), None)


def _matches(pattern: str, model: str) -> bool:
    if "*" not in pattern:
        return pattern == model
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), model, re.DOTALL) is not None
