"""Between the registry's own words and the messages that others read. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from forebay.clock import micros
from forebay.wire.v1 import registry_pb2 as wire
from forebay.wire.v1 import types_pb2 as words
from forebay.wire.v1.telemetry_pb2 import TelemetrySample
from forebay_registry.backend import Condition, EngineKind, Load, Model, Node, Verdict
from forebay_registry.fleet.fleet import View
from forebay_registry.fleet.watch import Told
from forebay_registry.nodes.drops import Drops
from forebay_registry.nodes.samples import Dropped, Hearing
from forebay_registry.nodes.troubles import NO_DROPS
from forebay_registry.wanted.catalog import AddBackend, FleetModel, parse_add
from forebay_registry.wanted.wire import to_pool

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
_HEALTH = {condition: wire.BackendHealth.Value(f"BACKEND_HEALTH_{condition.name}") for condition in Condition}


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
        gpu_indices=request.gpu_indices,
    )


def to_update(told: Told) -> wire.FleetUpdate:
    if told.update is None:
        return wire.FleetUpdate(term_us=told.epoch, epoch=told.epoch, stands_by=True, leader=told.leader)
    return wire.FleetUpdate(
        term_us=told.epoch,
        epoch=told.epoch,
        version=told.update.version,
        snapshot=told.update.is_snapshot,
        backends=[to_backend(view) for view in told.update.changed],
        removed_backend_ids=told.update.removed,
        pools=[to_pool(pool) for pool in told.update.pools or ()],
        pools_changed=told.update.pools is not None,
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
        **_verdict(view.verdict),
        checked_at_us=None if view.checked_at is None else micros(view.checked_at),
        models=[_to_model(model) for model in view.models],
        load=None if view.load is None else _to_load(view.load),
        has_credential=view.has_credential,
        model_names=dict(view.model_names),
        found_by=view.found_by,
        missing_models=view.missing_models,
        gpu_indices=view.gpu_indices,
        weight_milli=view.weight_milli,
        requests_per_minute=view.requests_per_minute,
        labels=dict(view.labels),
        kv_tokens=view.kv_tokens,
        models_at_once=view.models_at_once,
        engine_version=view.engine_version,
    )


def _verdict(verdict: Verdict | None) -> dict[str, Any]:
    """What is said of a backend's health beside the word for it."""
    if verdict is None:
        return {}
    until, deadline = verdict.maintenance_until, verdict.drain_deadline
    return {
        "health_since_us": micros(verdict.since),
        "health_cause": verdict.cause,
        "draining": verdict.is_draining,
        "drain_deadline_us": None if deadline is None else micros(deadline),
        "drain_forced": verdict.drain_forced,
        "drain_reason": verdict.drain_reason,
        "maintenance_until_us": None if until is None else micros(until),
    }


def to_node(node: Node, hearing: Hearing, problems: Iterable[str] = (), drops: Drops = NO_DROPS) -> wire.Node:
    skew_s = hearing.clock_skew_s
    return wire.Node(
        id=node.id,
        name=node.name,
        enrolled_at_us=micros(node.enrolled_at),
        heard_at_us=None if hearing.heard_at is None else micros(hearing.heard_at),
        last_sample=None if hearing.last is None else TelemetrySample.FromString(hearing.last.payload),
        samples=hearing.received,
        samples_lost=hearing.lost,
        clock_skew_ms=None if skew_s is None else round(skew_s * 1000),
        problems=problems,
        labels=dict(node.labels),
        note=node.note,
        without_agent=not node.has_agent,
        samples_dropped=[
            wire.DroppedSamples(reason=why, samples=drops.samples[why], last_at_us=micros(drops.last_at[why]))
            for why in Dropped
            if why in drops.samples
        ],
    )


def to_fleet_model(model: FleetModel) -> wire.FleetModel:
    return wire.FleetModel(
        name=model.name,
        pools=model.pools,
        backends=model.backends,
        healthy_backends=model.healthy_backends,
        context_length=model.context_length,
        capabilities=model.capabilities,
        quantization=model.quantization,
        size_bytes=model.size_bytes,
        description=model.description,
        declared=model.declared,
    )


def _to_model(model: Model) -> wire.BackendModel:
    return wire.BackendModel(
        name=model.name,
        context_length=model.context_length,
        capabilities=model.capabilities,
        loaded=model.loaded,
        engine_name=model.engine_name,
        slots=model.slots,
        size_bytes=model.size_bytes,
        expires_at_us=None if model.expires_at is None else micros(model.expires_at),
        vram_bytes=model.vram_bytes,
        disk_bytes=model.disk_bytes,
        parent=model.parent,
        family=model.family,
        parameter_size=model.parameter_size,
        quantization=model.quantization,
        trained_context_length=model.trained_context_length,
    )


def _to_load(load: Load) -> wire.EngineLoad:
    rates = load.rates
    return wire.EngineLoad(
        running=load.running,
        waiting=load.waiting,
        kv_used_fraction=load.kv_used_fraction,
        measured_at_us=micros(load.measured_at),
        stale=load.is_stale,
        swapped=load.swapped,
        window_ms=None if rates is None else round(rates.window_s * 1000),
        prompt_tokens_per_s=None if rates is None else rates.prompt_tokens_per_s,
        completion_tokens_per_s=None if rates is None else rates.completion_tokens_per_s,
        prefix_hit_fraction=None if rates is None else rates.prefix_hit_fraction,
        preemptions_per_s=None if rates is None else rates.preemptions_per_s,
        ttft_s=None if rates is None else rates.ttft_s,
        queue_s=None if rates is None else rates.queue_s,
        running_loras=load.running_loras,
    )
