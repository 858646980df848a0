"""What the discovery is told."""

from __future__ import annotations

from dataclasses import dataclass

from forebay_registry.discovery.kubernetes.settings import KubernetesSettings


@dataclass(frozen=True, slots=True)
class FindingSettings:
    auto: bool
    """Engines on nodes of which nothing else is said become backends by themselves."""
    forget_s: float
    """How long one that its agent does not find any more stays."""
    kubernetes: KubernetesSettings | None
