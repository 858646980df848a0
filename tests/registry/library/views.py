"""Backends as tests of the library want them."""

from __future__ import annotations

from typing import Any

from forebay_registry.backend import BackendId, Condition, EngineKind, Model, NodeId
from forebay_registry.fleet.fleet import View


def view(name: str, *models: str | Model, kind: EngineKind | None = EngineKind.OLLAMA, **more: Any) -> View:
    """A healthy one; its id is `be-NAME`."""
    usual: dict[str, Any] = {
        "id": BackendId(f"be-{name}"),
        "name": name,
        "url": f"http://{name}:11434",
        "kind": kind,
        "pool": "default",
        "node_id": None,
        "slots": 4,
        "slots_assumed": False,
        "enabled": True,
        "condition": Condition.HEALTHY,
        "reason": "",
        "checked_at": 1.0,
        "models": tuple(Model(m) if isinstance(m, str) else m for m in models),
        "load": None,
        "has_credential": False,
    }
    return View(**(usual | more))


NODE = NodeId("no-1")
