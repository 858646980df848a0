"""What MindRouter's routes have in common: numbers for our ids, times, and how our words are called there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from forebay.errors import BadInput, NotFound
from forebay.wire.v1 import admin_pb2, registry_pb2, types_pb2
from forebay_admin.seeds.asking import Asking
from forebay_admin.seeds.numbers import find, number_of

_HEALTH = {
    registry_pb2.BACKEND_HEALTH_HEALTHY: "healthy",
    registry_pb2.BACKEND_HEALTH_DEGRADED: "healthy",
    registry_pb2.BACKEND_HEALTH_SATURATED: "healthy",
    registry_pb2.BACKEND_HEALTH_UNHEALTHY: "unhealthy",
    registry_pb2.BACKEND_HEALTH_OFFLINE: "unhealthy",
    registry_pb2.BACKEND_HEALTH_DRAINING: "draining",
    registry_pb2.BACKEND_HEALTH_DRAINED: "draining",
}
_OUTCOMES = {
    types_pb2.OUTCOME_FINISHED: "completed",
    types_pb2.OUTCOME_CANCELLED: "cancelled",
    types_pb2.OUTCOME_FAILED: "failed",
    types_pb2.OUTCOME_REFUSED: "failed",
    types_pb2.OUTCOME_GATEWAY_LOST: "failed",
}
STATUSES = ("queued", "processing", "completed", "failed", "cancelled")
_SILENT_US = 90 * 1_000_000
_LONGEST_S = 19 * 365 * 86_400.0
GB = 1024**3


def iso(us: int) -> str | None:
    """None for a time that is not told."""
    return datetime.fromtimestamp(us / 1_000_000, UTC).isoformat() if us else None


def us_of(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000)


def since_us(now: float, at_us: int = 0) -> int:
    """From when on usage is asked for: then, or as far back as can be asked; never right now, which would be no span."""
    return min(max(at_us, round((now - _LONGEST_S) * 1_000_000)), round((now - 1) * 1_000_000))


def backend_status(backend: registry_pb2.Backend) -> str:
    if not backend.enabled:
        return "disabled"
    return "draining" if backend.draining else _HEALTH.get(backend.health, "unknown")


def request_status(outcome: int) -> str:
    return _OUTCOMES.get(outcome, "failed")  # type: ignore[call-overload, no-any-return]


def engine_word(kind: int) -> str:
    """unknown until it was found out."""
    word = types_pb2.EngineKind.Name(kind).removeprefix("ENGINE_KIND_").lower()  # type: ignore[arg-type]
    return "unknown" if word == "unspecified" else word


def is_online(node: registry_pb2.Node, now: float) -> bool:
    return node.HasField("heard_at_us") and now * 1_000_000 - node.heard_at_us < _SILENT_US


def gigabytes(amount: int | None) -> float | None:
    return round(amount / GB, 3) if amount is not None else None


def named(told: Any, field: str) -> Any:
    """None where the message does not tell it."""
    return getattr(told, field) if told.HasField(field) else None


# --- things by their number --------------------------------------------------------------------------------------------


async def the_backend(asking: Asking, asked: str = "") -> registry_pb2.Backend:
    """By the path unless said otherwise. Raises NotFound."""
    backends: Sequence[registry_pb2.Backend] = (await asking.call("ShowBackends")).backends
    return find("backend", backends, asked or asking.path["backend_id"], lambda one: one.id, lambda one: one.name)


async def the_node(asking: Asking, asked: str = "") -> registry_pb2.Node:
    nodes: Sequence[registry_pb2.Node] = (await asking.call("ShowNodes")).nodes
    return find("node", nodes, asked or asking.path["node_id"], lambda one: one.id, lambda one: one.name)


async def the_user(asking: Asking, asked: str = "") -> admin_pb2.User:
    users: Sequence[admin_pb2.User] = (await asking.call("ListUsers")).users
    return find("user", users, asked or asking.path["user_id"], lambda one: one.id, lambda one: one.name)


async def the_group(asking: Asking, asked: str = "") -> admin_pb2.Group:
    groups: Sequence[admin_pb2.Group] = (await asking.call("ListGroups")).groups
    return find("group", groups, asked or asking.path["group_id"], lambda one: one.id, lambda one: one.name)


async def the_group_said(asking: Asking, asked: str) -> admin_pb2.Group:
    """Of a body, where a group that is not there is bad input."""
    try:
        return await the_group(asking, asked)
    except NotFound as error:
        raise BadInput(f"Group with id {asked} not found") from error


async def all_keys(asking: Asking, **sought: Any) -> Sequence[admin_pb2.Key]:
    """Those that were revoked among them, the oldest first."""
    return list((await asking.call("ListKeys", include_revoked=True, **sought)).keys)


def number(kind: str, id: str) -> int | None:
    """None for nobody."""
    return number_of(kind, id) if id else None


def page_of(asking: Asking) -> tuple[int, int]:
    """skip and limit. Whoever reads on calls `asking.query.done()`."""
    skip = asking.query.whole("skip", 0, most=10_000_000)
    limit = asking.query.whole("limit", 100, least=1, most=1000)
    return skip or 0, limit or 100
