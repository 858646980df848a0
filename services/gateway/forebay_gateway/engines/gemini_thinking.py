"""How much a Gemini should think. Pure.

Up to 2.5 they get a budget of tokens, later ones a level (https://ai.google.dev/gemini-api/docs/thinking). Which are the
older ones is a closed set, told by name; the numbers are those of Google's own OpenAI-compatible API."""

from __future__ import annotations

import re

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.engines.thinking_wish import Effort

_OLDER = re.compile(r"gemini-[12]\.|gemma|learnlm")
_BUDGETS = {Effort.NONE: 0, Effort.MINIMAL: 1024, Effort.LOW: 1024, Effort.MEDIUM: 8192}
_MOST_BUDGET = 24576
_LEVELS = {Effort.NONE: "low", Effort.MINIMAL: "low", Effort.LOW: "low", Effort.MEDIUM: "medium"}
"""The newer ones cannot do without."""


def is_older(model: str) -> bool:
    return _OLDER.match(model) is not None


def thinking_config(effort: Effort | None, model: str) -> Json:
    """`thinkingConfig`; empty: as the model is used to."""
    if effort is None:
        return {}
    shows = {"includeThoughts": effort is not Effort.NONE}
    if is_older(model):
        return {**shows, "thinkingBudget": _BUDGETS.get(effort, _MOST_BUDGET)}
    return {**shows, "thinkingLevel": _LEVELS.get(effort, "high")}
