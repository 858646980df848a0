"""Which backends run on which GPUs, of what the registry knows."""

from __future__ import annotations

from collections.abc import Iterable

from forebay_registry.fleet.fleet import View
from forebay_registry.history.energy import Holding


def holdings(views: Iterable[View]) -> list[Holding]:
    """Of the backends that stand on a node."""
    return [Holding(view.id, view.node_id, view.gpu_indices) for view in views if view.node_id is not None]
