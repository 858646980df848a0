"""How much a Claude should think. Pure.

The older ones get a budget of tokens, which is a part of the answer's; the newer ones an effort, and judge by themselves
(https://platform.claude.com/docs/en/build-with-claude/thinking). Which are the older ones is a closed set, told by name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.engines.thinking_wish import Effort

LEAST_BUDGET = 1024
_BUDGETS = {Effort.MINIMAL: 1024, Effort.LOW: 1024, Effort.MEDIUM: 4096, Effort.HIGH: 16384}
_MOST_BUDGET = 32768
_OLDER = re.compile(r"claude-(?:[123]\b|(?:opus|sonnet|haiku)-4-(?:[015]\b|\d{8}))")


@dataclass(frozen=True, slots=True)
class Thinking:
    fields: Json = field(default_factory=dict)
    """`thinking`, where it is told."""
    effort: str | None = None
    """For `output_config`."""
    budget: int = 0
    """Tokens of the answer that are for thinking."""

    @property
    def is_on(self) -> bool:
        return self.fields.get("thinking", {}).get("type") in ("enabled", "adaptive")


def thinking_for(effort: Effort | None, model: str, max_tokens: int | None) -> Thinking:
    """`max_tokens`: None if the client set no limit."""
    if effort is None:
        return Thinking()
    if effort is Effort.NONE:
        return Thinking({"thinking": {"type": "disabled"}})
    if not _OLDER.search(model):
        # The newest say nothing of what they think unless they are asked for it.
        wanted = "low" if effort is Effort.MINIMAL else str(effort)
        return Thinking({"thinking": {"type": "adaptive", "display": "summarized"}}, effort=wanted)
    budget = _BUDGETS.get(effort, _MOST_BUDGET)
    if max_tokens is not None:
        budget = min(budget, max(LEAST_BUDGET, max_tokens // 2))
        if max_tokens <= budget:
            return Thinking()  # it cannot think so little; an answer without is better than none
    return Thinking({"thinking": {"type": "enabled", "budget_tokens": budget}}, budget=budget)
