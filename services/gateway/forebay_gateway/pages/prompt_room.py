"""Whether a prompt is within what an operator's rule allows, as an engine that has the model counts it. No estimate refuses
anything: where no engine can count, the prompt passes."""

from __future__ import annotations

from forebay_gateway.asked import Asked
from forebay_gateway.callers.call import Call
from forebay_gateway.callers.principals import Principal
from forebay_gateway.pages.counting import count_tokens
from forebay_gateway.refused import ContextTooLong
from forebay_gateway.rules.key_rules import rule_for
from forebay_gateway.serving import Means

_FAR_BELOW = 0.5
"""An estimate of so much of the cap needs no counting: they do not err by a half."""


async def demand_room(
    means: Means, principal: Principal, asked: Asked, model: str, prompt_bytes: int, call: Call
) -> None:
    """`model`: its name in the fleet. Raises ContextTooLong."""
    rule = rule_for(means.model_rules, model, principal, generates=asked.generates)
    most = rule.max_context_tokens if rule is not None else None
    if most is None or not asked.generates or prompt_bytes <= most:  # a token has a byte at least
        return
    if means.ratios.estimate(model, prompt_bytes) <= _FAR_BELOW * most:
        return
    counted = await count_tokens(
        asked.fields,
        model=model,
        pool=principal.pool,
        fleet=means.fleet,
        upstream=means.upstream,
        ratios=means.ratios,
        call=call,
        asked=asked,
    )
    if counted.count > most and not counted.is_estimate:
        raise ContextTooLong(
            f"The prompt has {counted.count} tokens, and an operator's rule or the API key allows {most} here. "
            "Shorten it."
        )
