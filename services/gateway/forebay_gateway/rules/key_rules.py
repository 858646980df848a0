"""What a key's own terms do to its requests: what it may ask for, and its limits on top of operators' rules. Pure."""

from __future__ import annotations

from dataclasses import replace

from forebay.errors import NotAllowed
from forebay_gateway.callers.principals import Principal
from forebay_gateway.canonical.forms import (
    CHAT,
    COMPLETION,
    EMBEDDING,
    IMAGE,
    IMAGE_EDIT,
    MODERATION,
    RERANK,
    SCORE,
    SPEECH,
    TRANSCRIPTION,
    TRANSLATION,
    Form,
)
from forebay_gateway.rules.model_rules import ModelRules, Rule

_WORDS = {
    CHAT.path: "chat",
    COMPLETION.path: "completion",
    EMBEDDING.path: "embedding",
    RERANK.path: "rerank",
    SCORE.path: "score",
    MODERATION.path: "moderation",
    IMAGE.path: "image",
    IMAGE_EDIT.path: "image_edit",
    SPEECH.path: "speech",
    TRANSCRIPTION.path: "transcription",
    TRANSLATION.path: "translation",
}
_NOTHING = Rule()


def demand_call(principal: Principal, form: Form) -> None:
    """Raises NotAllowed for what the key may not ask for."""
    terms = principal.terms
    if terms is not None and terms.calls and _WORDS[form.path] not in terms.calls:
        raise NotAllowed(
            f"This API key is for {', '.join(sorted(terms.calls))}, not for {_WORDS[form.path]}. Use another key, or ask "
            "your administrator to allow it."
        )


def rule_for(rules: ModelRules, model: str, principal: Principal, *, generates: bool) -> Rule | None:
    """What applies to a request of this caller: operators' rules, and within them the key's own limits."""
    terms = principal.terms
    if terms is None and not rules.are_there:
        return None
    rule = rules.of(model, principal.pool, principal.key_id, generates=generates)
    if terms is None or (terms.max_output_tokens is None and terms.max_context_tokens is None):
        return rule
    rule = rule or _NOTHING
    return replace(
        rule,
        max_output_tokens=_least(rule.max_output_tokens, terms.max_output_tokens),
        max_context_tokens=_least(rule.max_context_tokens, terms.max_context_tokens),
    )


def _least(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
