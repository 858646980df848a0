"""The desired state of the fleet as one thing: what stands in it, what changed between two of them, and how it was earlier.
Pure; keeping it is `keeping.wanted_store`'s part.

Each thing has one plain form, its spec: the fields of an entry of a fleet file, without those that are as usual. What
changed is told in specs, so that any version can be had from the newest one and the changes since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from forebay.errors import NotPossible
from forebay_registry.backend import (
    DEFAULT_POOL,
    BackendId,
    Desired,
    ModelFacts,
    Node,
    NodeId,
    Pool,
    Pull,
)

Spec = Mapping[str, Any]
"""Field → plain value, and its `name`."""


class Kind(StrEnum):
    NODE = "node"
    BACKEND = "backend"
    POOL = "pool"
    MODEL = "model"


Document = dict[Kind, dict[str, Spec]]
"""The whole desired state in plain form, by kind and name."""


@dataclass(frozen=True, slots=True)
class Wanted:
    version: int
    backends: Mapping[BackendId, Desired]
    nodes: Mapping[NodeId, Node]
    pools: Mapping[str, Pool]
    models: Mapping[str, ModelFacts]


class Outdated(NotPossible):
    """The fleet was changed by somebody else at the same time; nothing of this change was made. Look again and repeat it."""


@dataclass(frozen=True, slots=True)
class Change:
    kind: Kind
    name: str
    before: Spec | None
    """None: it is new."""
    after: Spec | None
    """None: it is gone."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of the desired state, as it is stored: all of it, or nothing."""

    base_version: int
    """It was decided against this one."""
    actor: str
    at: float
    changes: tuple[Change, ...]
    """What makes it a version. Empty: only facts about nodes, which are no matter of wishes."""
    backends: tuple[Desired, ...] = ()
    """New or changed, like the next three."""
    nodes: tuple[Node, ...] = ()
    pools: tuple[Pool, ...] = ()
    models: tuple[ModelFacts, ...] = ()
    gone_backends: tuple[BackendId, ...] = ()
    gone_nodes: tuple[NodeId, ...] = ()
    gone_pools: tuple[str, ...] = ()
    gone_models: tuple[str, ...] = ()

    @property
    def version(self) -> int:
        """After it."""
        return self.base_version + bool(self.changes)


@dataclass(frozen=True, slots=True)
class Version:
    number: int
    at: float
    actor: str
    changes: tuple[Change, ...]


def edit_between(before: Wanted, after: Wanted, *, actor: str, at: float) -> Edit | None:
    """What makes `after` of `before`; None when they are the same."""
    backends, gone_backends = _differing(before.backends, after.backends)
    nodes, gone_nodes = _differing(before.nodes, after.nodes)
    pools, gone_pools = _differing(before.pools, after.pools)
    models, gone_models = _differing(before.models, after.models)
    if not any((backends, gone_backends, nodes, gone_nodes, pools, gone_pools, models, gone_models)):
        return None
    changes = [
        *_changes(Kind.NODE, before, after, (*(n.id for n in nodes), *gone_nodes)),
        *_changes(Kind.POOL, before, after, (*(p.name for p in pools), *gone_pools)),
        *_changes(Kind.MODEL, before, after, (*(m.name for m in models), *gone_models)),
        *_changes(Kind.BACKEND, before, after, (*(b.id for b in backends), *gone_backends)),
    ]
    return Edit(
        before.version,
        actor,
        at,
        tuple(changes),
        backends,
        nodes,
        pools,
        models,
        gone_backends,
        gone_nodes,
        gone_pools,
        gone_models,
    )


def document(wanted: Wanted) -> Document:
    return {
        Kind.NODE: {n.name: node_spec(n) for n in _named(wanted.nodes.values())},
        Kind.BACKEND: {b.name: backend_spec(b, wanted.nodes) for b in _named(wanted.backends.values())},
        Kind.POOL: {p.name: pool_spec(p) for p in _named(wanted.pools.values())},
        Kind.MODEL: {m.name: model_spec(m) for m in _named(wanted.models.values())},
    }


def earlier(newest: Document, since: Iterable[Version]) -> Document:
    """The state before those versions, which are all that came after it."""
    then = {kind: dict(specs) for kind, specs in newest.items()}
    for version in sorted(since, key=lambda one: one.number, reverse=True):
        for change in version.changes:
            if change.before is None:
                then[change.kind].pop(change.name, None)
            else:
                then[change.kind][change.name] = change.before
    return {kind: dict(sorted(specs.items())) for kind, specs in then.items()}


# --- the plain forms ---


def node_spec(node: Node) -> Spec:
    return _said({"name": node.name, "labels": dict(node.labels), "note": node.note})


def backend_spec(backend: Desired, nodes: Mapping[NodeId, Node]) -> Spec:
    node = nodes.get(backend.node_id) if backend.node_id is not None else None
    return _said(
        {
            "name": backend.name,
            "url": backend.url,
            "kind": str(backend.kind) if backend.kind is not None else "",
            "pool": backend.pool if backend.pool != DEFAULT_POOL else "",
            "node": node.name if node is not None else "",
            "gpu_indices": list(backend.gpu_indices),
            "slots": backend.slots,
            "weight": backend.weight_milli / 1000,
            "kv_tokens": backend.kv_tokens,
            "requests_per_minute": backend.requests_per_minute,
            "models_at_once": backend.models_at_once,
            "labels": dict(backend.labels),
            "models": dict(backend.model_names),
        }
    ) | ({} if backend.enabled else {"enabled": False})


def pool_spec(pool: Pool) -> Spec:
    return _said(
        {
            "name": pool.name,
            "hosts": list(pool.hosts),
            "path_prefix": pool.path_prefix,
            "required_models": list(pool.required_models),
            "pull": "" if pool.pull is Pull.AUTO else str(pool.pull),
        }
    )


def model_spec(model: ModelFacts) -> Spec:
    return _said(
        {
            "name": model.name,
            "capabilities": list(model.capabilities),
            "context_length": model.context_length,
            "quantization": model.quantization,
            "size_bytes": model.size_bytes,
            "description": model.description,
        }
    )


def _said(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


_Named = TypeVar("_Named", Node, Desired, Pool, ModelFacts)
_Key = TypeVar("_Key", bound=str)
_Thing = TypeVar("_Thing")


def _named(things: Iterable[_Named]) -> list[_Named]:
    return sorted(things, key=lambda one: one.name)


def _differing(
    before: Mapping[_Key, _Thing], after: Mapping[_Key, _Thing]
) -> tuple[tuple[_Thing, ...], tuple[_Key, ...]]:
    put = tuple(thing for key, thing in after.items() if before.get(key) is not thing and before.get(key) != thing)
    return put, tuple(key for key in before if key not in after)


def _changes(kind: Kind, before: Wanted, after: Wanted, keys: Iterable[str]) -> Iterable[Change]:
    for key in keys:
        was, now = _spec(kind, before, key), _spec(kind, after, key)
        told = now if now is not None else was
        if told is not None and was != now:
            yield Change(kind, told["name"], was, now)


def _spec(kind: Kind, wanted: Wanted, key: str) -> Spec | None:
    match kind:
        case Kind.NODE:
            node = wanted.nodes.get(NodeId(key))
            return node_spec(node) if node is not None else None
        case Kind.BACKEND:
            backend = wanted.backends.get(BackendId(key))
            return backend_spec(backend, wanted.nodes) if backend is not None else None
        case Kind.POOL:
            pool = wanted.pools.get(key)
            return pool_spec(pool) if pool is not None else None
        case Kind.MODEL:
            model = wanted.models.get(key)
            return model_spec(model) if model is not None else None
