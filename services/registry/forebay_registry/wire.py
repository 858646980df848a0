"""Between the registry's own words and the messages that others read. Nothing is decided here."""

from __future__ import annotations

from forebay.clock import micros
from forebay.wire.v1 import registry_pb2 as wire
from forebay.wire.v1 import types_pb2 as words
from forebay.wire.v1.telemetry_pb2 import TelemetrySample
from forebay_registry.backend import Condition, EngineKind, Load, Model, Node
from forebay_registry.fleet.fleet import Update, View
from forebay_registry.nodes.samples import Hearing
from forebay_registry.wanted.catalog import AddBackend, FleetModel, parse_add

_KINDS = {
    EngineKind.OPENAI: words.ENGINE_KIND_OPENAI,
    EngineKind.OLLAMA: words.ENGINE_KIND_OLLAMA,
    EngineKind.VLLM: words.ENGINE_KIND_VLLM,
    EngineKind.LLAMACPP: words.ENGINE_KIND_LLAMACPP,
    EngineKind.SGLANG: words.ENGINE_KIND_SGLANG,
    EngineKind.ANTHROPIC: words.ENGINE_KIND_ANTHROPIC,
    EngineKind.GEMINI: words.ENGINE_KIND_GEMINI,
    EngineKind.COHERE: words.ENGINE_KIND_COHERE,
    EngineKind.AZURE: words.ENGINE_KIND_AZURE,
    EngineKind.OPENROUTER: words.ENGINE_KIND_OPENROUTER,
}
_KINDS_BACK = {number: kind for kind, number in _KINDS.items()}
_HEALTH = {
    Condition.UNKNOWN: wire.BACKEND_HEALTH_UNKNOWN,
    Condition.HEALTHY: wire.BACKEND_HEALTH_HEALTHY,
    Condition.UNHEALTHY: wire.BACKEND_HEALTH_UNHEALTHY,
}


def add_order(request: wire.AddBackendRequest) -> AddBackend:
    """Raises BadInput. A kind that this version does not know is found out by probing."""
    return parse_add(
        actor=request.actor,
        name=request.name,
        url=request.url,
        kind=_KINDS_BACK.get(request.kind),
        pool=request.pool,
        slots=request.slots,
        node=request.node,
        replace=request.replace,
        model_names=dict(request.model_names),
    )


def to_update(update: Update, term_us: int) -> wire.FleetUpdate:
    return wire.FleetUpdate(
        term_us=term_us,
        version=update.version,
        snapshot=update.is_snapshot,
        backends=[to_backend(view) for view in update.changed],
        removed_backend_ids=update.removed,
    )


def to_backend(view: View) -> wire.Backend:
    return wire.Backend(
        id=view.id,
        name=view.name,
        url=view.url,
        kind=_KINDS[view.kind] if view.kind else words.ENGINE_KIND_UNSPECIFIED,
        pool=view.pool,
        node_id=view.node_id or "",
        slots=view.slots,
        slots_assumed=view.slots_assumed,
        enabled=view.enabled,
        health=_HEALTH[view.condition],
        health_reason=view.reason,
        checked_at_us=None if view.checked_at is None else micros(view.checked_at),
        models=[_to_model(model) for model in view.models],
        load=None if view.load is None else _to_load(view.load),
        has_credential=view.has_credential,
        model_names=dict(view.model_names),
    )


def to_node(node: Node, hearing: Hearing) -> wire.Node:
    return wire.Node(
        id=node.id,
        name=node.name,
        enrolled_at_us=micros(node.enrolled_at),
        heard_at_us=None if hearing.heard_at is None else micros(hearing.heard_at),
        last_sample=None if hearing.last is None else TelemetrySample.FromString(hearing.last.payload),
        samples=hearing.received,
        samples_lost=hearing.lost,
    )


def to_fleet_model(model: FleetModel) -> wire.FleetModel:
    return wire.FleetModel(
        name=model.name,
        pools=model.pools,
        backends=model.backends,
        healthy_backends=model.healthy_backends,
        context_length=model.context_length,
        capabilities=model.capabilities,
    )


def _to_model(model: Model) -> wire.BackendModel:
    return wire.BackendModel(
        name=model.name,
        context_length=model.context_length,
        capabilities=model.capabilities,
        loaded=model.loaded,
        engine_name=model.engine_name,
    )


def _to_load(load: Load) -> wire.EngineLoad:
    return wire.EngineLoad(
        running=load.running,
        waiting=load.waiting,
        kv_used_fraction=load.kv_used_fraction,
        measured_at_us=micros(load.measured_at),
    )
