"""What operators say of models, put over what engines say. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from forebay_registry.backend import Model, ModelFacts


def as_operators_say(models: Iterable[Model], facts: Mapping[str, ModelFacts]) -> tuple[Model, ...]:
    """`models` by their names in the fleet. What an operator does not say stays as the engine says it."""
    return tuple(_told(model, facts[model.name]) if model.name in facts else model for model in models)


def _told(model: Model, facts: ModelFacts) -> Model:
    return replace(
        model,
        capabilities=facts.capabilities or model.capabilities,
        context_length=facts.context_length or model.context_length,
        quantization=facts.quantization or model.quantization,
        size_bytes=facts.size_bytes or model.size_bytes,
    )


def declared(facts: ModelFacts) -> tuple[str, ...]:
    """The names of what is said."""
    return tuple(
        name
        for name in ("capabilities", "context_length", "quantization", "size_bytes", "description")
        if getattr(facts, name)
    )
