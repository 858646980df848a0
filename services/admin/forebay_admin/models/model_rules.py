"""Other names of models, and what gateways do to requests before they send them on. Pure; keeping them is
model_rules_store's job, and doing it the gateway's."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from forebay.errors import BadInput, NotPossible
from forebay_admin.models.terms import demand_model_name
from forebay_admin.people.people import demand_name

LARGEST_CAP = 10**9
MOST_FIELDS = 64
LONGEST_VALUE = 16_384
"""Characters of JSON."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_DURATION = re.compile(r"[-+]?(?:0|(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)", re.ASCII)
_OF_THE_REQUEST = frozenset(
    ("model", "name", "messages", "prompt", "input", "stream", "stream_options", "n", "best_of", "raw", "suffix")
)
"""What the request is, and what the gateway has counted on before a rule is looked up."""


class ScopeKind(StrEnum):
    """Whose requests a rule is for. In this order they apply, the later over the earlier."""

    EVERYONE = "everyone"
    POOL = "pool"
    MODEL = "model"
    KEY = "key"


class Thinking(StrEnum):
    OFF = "off"
    USUAL = "usual"
    """As the model does unasked."""


class Structured(StrEnum):
    """What is done about an answer that must be JSON."""

    TRUST = "trust"
    CHECK = "check"
    ASK_AGAIN = "ask_again"


@dataclass(frozen=True, slots=True)
class Scope:
    kind: ScopeKind = ScopeKind.EVERYONE
    name: str = ""
    """Of a model: its name in the fleet, or a pattern in which * stands for anything. Of a key: its public id."""

    def __str__(self) -> str:
        return "everyone" if self.kind is ScopeKind.EVERYONE else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Rule:
    scope: Scope
    defaults: Mapping[str, str] = field(default_factory=dict)
    """Field of OpenAI's chat → JSON, put in where the client says nothing."""
    pinned: Mapping[str, str] = field(default_factory=dict)
    """Put in whatever the client says."""
    max_output_tokens: int | None = None
    num_ctx: int | None = None
    keep_alive_s: int | None = None
    thinking: Thinking | None = None
    structured: Structured | None = None
    max_context_tokens: int | None = None
    """Of a prompt."""

    @property
    def says_nothing(self) -> bool:
        caps = (self.max_output_tokens, self.num_ctx, self.keep_alive_s)
        if self.max_context_tokens is not None or self.structured is not None:
            return False
        return not self.defaults and not self.pinned and self.thinking is None and caps == (None, None, None)


@dataclass(frozen=True, slots=True)
class Alias:
    alias: str
    model: str
    pool: str = ""
    """Empty: every pool."""

    def meets(self, other: Alias) -> bool:
        """Whether there is a pool in which both are."""
        return not self.pool or not other.pool or self.pool == other.pool


def demand_alias(wanted: Alias, known: Iterable[Alias]) -> Alias:
    """Raises BadInput for what is no name, NotPossible for an alias of an alias."""
    demand_model_name(wanted.alias)
    demand_model_name(wanted.model)
    if wanted.pool:
        demand_name(wanted.pool, "A pool's name")
    if wanted.alias == wanted.model:
        raise BadInput(f"{wanted.alias} would stand for itself.")
    for other in known:
        if other.meets(wanted) and other.alias == wanted.model:
            raise NotPossible(f"{wanted.model} is itself an alias, of {other.model}: name that model.")
        if other.meets(wanted) and other.model == wanted.alias:
            raise NotPossible(f"{other.alias} is an alias of {wanted.alias}, which can therefore be none.")
    return wanted


def demand_scope(scope: Scope) -> Scope:
    """Raises BadInput."""
    if scope.kind is ScopeKind.POOL:
        demand_name(scope.name, "A pool's name")
    if scope.kind is ScopeKind.MODEL:
        demand_model_name(scope.name)
    return scope


def demand_rule(rule: Rule) -> Rule:
    """Raises BadInput."""
    for fields in (rule.defaults, rule.pinned):
        if len(fields) > MOST_FIELDS:
            raise BadInput(f"A rule sets at most {MOST_FIELDS} fields.")
    for name, cap in (
        ("max_output_tokens", rule.max_output_tokens),
        ("num_ctx", rule.num_ctx),
        ("keep_alive_s", rule.keep_alive_s),
        ("max_context_tokens", rule.max_context_tokens),
    ):
        if cap is not None and not 1 <= cap <= LARGEST_CAP:
            raise BadInput(f"{name} is from 1 to {LARGEST_CAP}, and not {cap}.")
    if rule.says_nothing:
        raise BadInput("Nothing would be left of the rule; take it away with `forebay model rule remove`.")
    return rule


def demand_fields(fields: Mapping[str, str]) -> dict[str, str]:
    """As they are kept: JSON without spaces. Raises BadInput."""
    return {name: _demand_value(name, text) for name, text in fields.items()}


def changed_fields(before: Mapping[str, str], put: Mapping[str, str], removed: Collection[str]) -> dict[str, str]:
    """Raises BadInput for one that is not there to be taken away."""
    for name in removed:
        if name not in before:
            raise BadInput(f"The rule sets no {name}.")
    return {name: text for name, text in {**before, **put}.items() if name in put or name not in removed}


def in_order(rules: Iterable[Rule]) -> list[Rule]:
    """As they apply. Of models, what is said more generally comes first: patterns before names, short before long."""
    kinds = {kind: place for place, kind in enumerate(ScopeKind)}

    def place(rule: Rule) -> tuple[int, bool, int, str]:
        name = rule.scope.name
        return kinds[rule.scope.kind], "*" not in name, len(name.replace("*", "")), name

    return sorted(rules, key=place)


def _demand_value(name: str, text: str) -> str:
    if not _NAME.fullmatch(name):
        raise BadInput(f"{name[:80]!r} is not the name of a field.")
    lower = name.lower()
    if lower in _OF_THE_REQUEST:
        raise BadInput(f"`{name}` is for the client to say; no rule can set it.")
    if lower != name and lower in _KINDS:
        raise BadInput(f"There is no field {name}; write {lower}.")
    if len(text) > LONGEST_VALUE:
        raise BadInput(f"The value of {name} is longer than {LONGEST_VALUE} characters.")
    try:
        value = orjson.loads(text)
        kept = orjson.dumps(value).decode()
    except (orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
        raise BadInput(f"The value of {name} is not JSON: {error}.") from error
    if "\\u0000" in kept:
        raise BadInput(f"The value of {name} has a null character.")
    if value is None:
        raise BadInput(f"The value of {name} is null, which says nothing.")
    wanted, is_one = _KINDS.get(name, ("", lambda _: True))
    if not is_one(value):
        raise BadInput(f"{name} must be {wanted}, and not {kept[:80]}.")
    return kept


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return _is_whole(value) and 1 <= value <= LARGEST_CAP


def _is_stop(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(text, str) for text in value))


def _is_span(value: Any) -> bool:
    return _is_number(value) or (isinstance(value, str) and _DURATION.fullmatch(value) is not None)


_NUMBER = ("a number", _is_number)
_WHOLE = ("a whole number", _is_whole)
_COUNT = ("a whole number of at least 1", _is_count)
_OBJECT = ("a JSON object", lambda value: isinstance(value, dict))
_FLAG = ("true or false", lambda value: isinstance(value, bool))
_TEXT = ("a text", lambda value: isinstance(value, str))

_KINDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    # Those whose kind every engine agrees on: a wrong one would break every request that the rule touches.
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "min_p": _NUMBER,
    "presence_penalty": _NUMBER,
    "frequency_penalty": _NUMBER,
    "repetition_penalty": _NUMBER,
    "repeat_penalty": _NUMBER,
    "top_k": _WHOLE,
    "seed": _WHOLE,
    "max_tokens": _COUNT,
    "max_completion_tokens": _COUNT,
    "stop": ("a text or a list of texts", _is_stop),
    "reasoning_effort": _TEXT,
    "response_format": _OBJECT,
    "chat_template_kwargs": _OBJECT,
    "options": _OBJECT,
    "keep_alive": ('a number of seconds or a length of time such as "5m"', _is_span),
    "dimensions": _COUNT,
    "logprobs": _FLAG,
    "top_logprobs": _WHOLE,
    "parallel_tool_calls": _FLAG,
    "user": _TEXT,
}
