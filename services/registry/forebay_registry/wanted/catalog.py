"""What operators may do to the fleet, decided. Pure: an order and what there is come in, the change or a clear error goes
out. Carrying a change out (storing, watching, telling) is `roster`'s part."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from urllib.parse import urlsplit

from forebay.errors import AlreadyExists, BadInput, NotFound
from forebay_registry.backend import DEFAULT_POOL, BackendId, Desired, EngineKind, ModelFacts, Node, NodeId
from forebay_registry.engines.providers import base_of, provider_at
from forebay_registry.fleet.fleet import View
from forebay_registry.fleet.model_facts import declared
from forebay_registry.fleet.model_names import Names, changed, demand_names

MAX_SLOTS = 100_000
_MOST_GPUS = 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")  # it is a word in NATS subjects, which dots would divide
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class AddBackend:
    """An order as it was understood: names checked, the address in its one form."""

    actor: str
    name: str
    url: str
    kind: EngineKind | None = None
    pool: str = DEFAULT_POOL
    slots: int = 0
    node: str = ""
    replace: bool = False
    model_names: Names = ()
    gpu_indices: tuple[int, ...] = ()
    """Empty: not said."""
    found_by: str = ""
    """As in Desired."""


@dataclass(frozen=True, slots=True)
class Added:
    backend: Desired
    created: bool
    changed: bool
    """Whether there is anything to store."""


def parse_add(
    *,
    actor: str,
    name: str,
    url: str,
    kind: EngineKind | None = None,
    pool: str = "",
    slots: int = 0,
    node: str = "",
    replace: bool = False,
    model_names: Mapping[str, str] | None = None,
    gpu_indices: Iterable[int] = (),
) -> AddBackend:
    """Raises BadInput."""
    demand_name(name, "a backend")
    if pool:
        demand_name(pool, "a pool")
    if not 0 <= slots <= MAX_SLOTS:
        raise BadInput(f"{slots} is not a number of slots; give 1 to {MAX_SLOTS}, or 0 for what the engine says.")
    names = demand_names(model_names or {})
    address = normal_url(url)
    kind = kind or provider_at(address)
    url, gpus = base_of(address, kind), demand_gpus(gpu_indices)
    if gpus and not node:
        raise BadInput("GPUs belong to a node: say on which node the engine runs.")
    return AddBackend(actor, name, url, kind, pool or DEFAULT_POOL, slots, node, replace, names, gpus)


def demand_name(name: str, what: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"{name!r} cannot be the name of {what}: begin with a letter or digit and use letters, digits, '.', '_' "
            "and '-', at most 63."
        )


def demand_node_name(name: str) -> None:
    if not _NODE_NAME.fullmatch(name):
        raise BadInput(
            f"{name!r} cannot be the name of a node: begin with a letter or digit and use letters, digits, '_' and '-', "
            "at most 64."
        )


def demand_gpus(told: Iterable[int]) -> tuple[int, ...]:
    """GPUs of one node, in order. Raises BadInput."""
    indices = tuple(sorted(told))
    if any(not 0 <= index < _MOST_GPUS for index in indices):
        raise BadInput(f"The GPUs of a node are counted from 0, and there are at most {_MOST_GPUS}.")
    if len(set(indices)) != len(indices):
        raise BadInput("A GPU is named twice.")
    return indices


def normal_url(text: str) -> str:
    """The one way to write a base URL: lower case host, no default port, no `/v1`, no slash at the end. Raises BadInput."""
    text = text.strip()
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadInput(f"{text!r} is not a URL: {error}.") from error
    if parts.scheme not in _DEFAULT_PORTS:
        raise BadInput(f"The address must begin with http:// or https://; did you mean http://{text}?")
    if not host or any(c.isspace() for c in text) or not text.isprintable():
        raise BadInput(f"{text!r} has no usable host name.")
    if parts.username is not None or parts.password is not None:
        raise BadInput("Leave the credential out of the address; give it apart, so that it is stored sealed.")
    if parts.query or parts.fragment:
        raise BadInput(f"{text!r} must be the engine's base address, without '?' and '#'.")
    host = f"[{host}]" if ":" in host else host
    if port is not None and port != _DEFAULT_PORTS[parts.scheme]:
        host = f"{host}:{port}"
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{host}{path}"


def add(
    order: AddBackend,
    backends: Mapping[BackendId, Desired],
    nodes: Mapping[NodeId, Node],
    *,
    new_id: BackendId,
    now: float,
) -> Added:
    """The same order again changes nothing. Raises AlreadyExists, NotFound."""
    node_id = _node_called(order.node, nodes).id if order.node else None
    held = next((b for b in backends.values() if b.name == order.name), None)
    other = next((b for b in backends.values() if b.url == order.url and b.name != order.name), None)
    if other is not None:
        # Two names for one engine would give its slots away twice.
        raise AlreadyExists(f"The backend {other.name} is at {order.url} already; an engine can be registered once.")
    wanted = Desired(
        id=held.id if held else new_id,
        name=order.name,
        url=order.url,
        kind=order.kind,
        pool=order.pool,
        slots=order.slots,
        node_id=node_id,
        changed_by=order.actor,
        changed_at=now,
        model_names=order.model_names,
        gpu_indices=order.gpu_indices,
        found_by=order.found_by,
    )
    if held is not None and order.found_by and held.changed_by != order.actor:
        raise AlreadyExists(f"The backend {held.name} was changed by {held.changed_by} meanwhile, whose word counts.")
    if held is not None:
        wanted = _with_the_rest(wanted, held)
    if held is None:
        return Added(wanted, created=True, changed=True)
    if replace(wanted, changed_by=held.changed_by, changed_at=held.changed_at) == held:
        return Added(held, created=False, changed=False)
    if not order.replace:
        raise AlreadyExists(f"There is a backend {held.name} already, at {held.url}; say replace to change it.")
    return Added(wanted, created=False, changed=True)


def _with_the_rest(wanted: Desired, held: Desired) -> Desired:
    """With what an order of this kind cannot say, as it was."""
    return replace(
        wanted,
        enabled=held.enabled,
        gpu_indices=wanted.gpu_indices or (held.gpu_indices if held.node_id == wanted.node_id else ()),
        weight_milli=held.weight_milli,
        kv_tokens=held.kv_tokens,
        requests_per_minute=held.requests_per_minute,
        models_at_once=held.models_at_once,
        labels=held.labels,
    )


def remove(name: str, backends: Mapping[BackendId, Desired], *, only: Desired | None = None) -> Desired:
    """`only`: as it must still be. Raises NotFound."""
    held = next((b for b in backends.values() if b.name == name), None)
    if held is None:
        raise NotFound(f"There is no backend {name!r}.{_known(b.name for b in backends.values())}")
    if only is not None and held != only:
        raise NotFound(f"The backend {name} was changed by {held.changed_by} meanwhile, and stays.")
    return held


def name_models(
    name: str,
    put: Mapping[str, str],
    removed: Collection[str],
    backends: Mapping[BackendId, Desired],
    *,
    actor: str,
    now: float,
) -> Desired:
    """The backend with those names of models. Raises NotFound, BadInput."""
    held = remove(name, backends)
    names = changed(held.model_names, put, removed)
    return replace(held, model_names=names, changed_by=actor, changed_at=now)


def enrol(name: str, nodes: Mapping[NodeId, Node], *, actor: str, new_id: NodeId, now: float) -> tuple[Node, bool]:
    """The node of that name, with its agent, and whether it is new or changed. Raises BadInput."""
    demand_node_name(name)
    held = next((n for n in nodes.values() if n.name == name), None)
    if held is None:
        return Node(new_id, name, now, actor), True
    if not held.has_agent:  # it was described before its agent came
        return replace(held, has_agent=True, enrolled_at=now, enrolled_by=actor), True
    return held, False


@dataclass(frozen=True, slots=True)
class FleetModel:
    name: str
    pools: tuple[str, ...]
    backends: tuple[str, ...]
    """Names."""
    healthy_backends: int
    context_length: int | None
    """As an operator says, else the smallest among healthy backends that tell."""
    capabilities: tuple[str, ...]
    quantization: str = ""
    """Where its backends differ, each of them."""
    size_bytes: int | None = None
    """In memory; the largest that is told."""
    description: str = ""
    declared: tuple[str, ...] = ()
    """Which of these an operator said."""


def models_of(views: Iterable[View], facts: Mapping[str, ModelFacts] = MappingProxyType({})) -> tuple[FleetModel, ...]:
    """Every model that some enabled backend has or had when it was last heard, by name. `facts`: what operators say of them,
    which the views have in them already, except for what is only for people."""
    serving: dict[str, list[View]] = {}
    for view in views:
        for model in view.models if view.enabled else ():
            serving.setdefault(model.name, []).append(view)
    return tuple(_fleet_model(name, serving[name], facts.get(name)) for name in sorted(serving))


def _fleet_model(name: str, views: list[View], facts: ModelFacts | None) -> FleetModel:
    healthy = [v for v in views if v.condition.takes_new]
    of_that_name = [m for v in views for m in v.models if m.name == name]
    lengths = [m.context_length for v in healthy for m in v.models if m.name == name and m.context_length is not None]
    return FleetModel(
        name=name,
        pools=tuple(sorted({v.pool for v in views})),
        backends=tuple(sorted(v.name for v in views)),
        healthy_backends=len(healthy),
        context_length=(facts.context_length if facts is not None else None) or min(lengths, default=None),
        capabilities=tuple(sorted({c for m in of_that_name for c in m.capabilities})),
        quantization=", ".join(sorted({m.quantization for m in of_that_name if m.quantization})),
        size_bytes=max((m.size_bytes for m in of_that_name if m.size_bytes is not None), default=None),
        description=facts.description if facts is not None else "",
        declared=declared(facts) if facts is not None else (),
    )


def _node_called(name: str, nodes: Mapping[NodeId, Node]) -> Node:
    for node in nodes.values():
        if node.name == name:
            return node
    raise NotFound(f"There is no node {name!r}; enrol it first.{_known(n.name for n in nodes.values())}")


def _known(names: Iterable[str]) -> str:
    listed = sorted(names)
    if not listed:
        return " There are none."
    return f" There are: {', '.join(listed[:20])}{' …' if len(listed) > 20 else ''}."
