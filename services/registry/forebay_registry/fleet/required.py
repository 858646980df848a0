"""Which of the models that a pool requires a backend lacks. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from forebay_registry.backend import Condition, Model

_USUAL_TAG = ":latest"


def missing(required: Iterable[str], models: Collection[Model], condition: Condition) -> tuple[str, ...]:
    """By name, as the fleet calls them. Of a backend that never told what it has, nothing is known to be missing."""
    if not models and condition in (Condition.UNKNOWN, Condition.STARTING):
        return ()
    there = {model.name.removesuffix(_USUAL_TAG) for model in models}
    return tuple(sorted({name for name in required if name.removesuffix(_USUAL_TAG) not in there}))
