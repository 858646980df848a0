"""Which models somebody's chat can be held with, and what each of them is able to do. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from forebay.wire.v1 import registry_pb2
from forebay_admin.keys.keys import Limits

DEFAULT_POOL = "default"

_TALKS = frozenset(("chat", "completion", "text", "tools", "vision", "multimodal", "thinking", "reasoning", "insert"))
_WORDS = {
    "multimodal": "vision",
    "reasoning": "thinking",
    "function_calling": "tools",
    "tool_calling": "tools",
    "embeddings": "embedding",
}
"""Engines have several words for the same."""


@dataclass(frozen=True, slots=True)
class Offer:
    name: str
    capabilities: tuple[str, ...]
    context_length: int | None
    description: str
    is_well: bool
    """A backend that has it is healthy."""

    @property
    def talks(self) -> bool:
        """What no engine says anything about is taken for a model that talks, as most are."""
        return not self.capabilities or not _TALKS.isdisjoint(self.capabilities)


def offers(models: Iterable[registry_pb2.FleetModel], limits: Limits) -> list[Offer]:
    """Of all models, those that a key with these limits may use, by name."""
    pools = {limits.pool or DEFAULT_POOL, *limits.terms.other_pools}
    found = [
        Offer(
            model.name,
            tuple(sorted({_WORDS.get(word, word) for word in model.capabilities})),
            model.context_length if model.HasField("context_length") else None,
            model.description,
            model.healthy_backends > 0,
        )
        for model in models
        if _may_use(limits, model.name) and (not model.pools or not pools.isdisjoint(model.pools))
    ]
    return sorted(found, key=lambda offer: (not offer.is_well, offer.name))


def _may_use(limits: Limits, name: str) -> bool:
    if any(fnmatchcase(name, pattern) for pattern in limits.terms.denied_models):
        return False
    return not limits.allowed_models or any(fnmatchcase(name, pattern) for pattern in limits.allowed_models)
