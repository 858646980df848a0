"""The fleet and its virtual endpoints, from the registry."""

from __future__ import annotations

from collections.abc import AsyncIterable, Sequence

from google.protobuf.message import DecodeError

from forebay.backend_states import Condition, condition_named
from forebay.registries import FleetStream
from forebay.rpc import Peer
from forebay.wire.v1 import fleet_pb2, registry_pb2, types_pb2
from forebay_gateway.callers.virtual_endpoints import VirtualEndpoint, VirtualEndpoints
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.fleet import Backend, Fleet, ModelOnBackend

_KINDS = {
    types_pb2.ENGINE_KIND_OPENAI: EngineKind.OPENAI,
    types_pb2.ENGINE_KIND_OLLAMA: EngineKind.OLLAMA,
    types_pb2.ENGINE_KIND_VLLM: EngineKind.VLLM,
    types_pb2.ENGINE_KIND_LLAMACPP: EngineKind.LLAMACPP,
    types_pb2.ENGINE_KIND_SGLANG: EngineKind.SGLANG,
    types_pb2.ENGINE_KIND_ANTHROPIC: EngineKind.ANTHROPIC,
    types_pb2.ENGINE_KIND_GEMINI: EngineKind.GEMINI,
    types_pb2.ENGINE_KIND_COHERE: EngineKind.COHERE,
    types_pb2.ENGINE_KIND_AZURE: EngineKind.AZURE,
    types_pb2.ENGINE_KIND_OPENROUTER: EngineKind.OPENROUTER,
}
_CONDITIONS = {number: condition_named(name) for name, number in registry_pb2.BackendHealth.items()}


class FleetWatch:
    name = "fleet"
    owner = "registry"

    def __init__(self, registries: Sequence[Peer], fleet: Fleet, endpoints: VirtualEndpoints) -> None:
        self._stream = FleetStream(registries)
        self._fleet = fleet
        self._endpoints = endpoints
        self._wire: dict[str, registry_pb2.Backend] = {}
        self._pools: list[fleet_pb2.PoolSpec] = []
        self.version = 0
        """Of the last update, by the registry's count; 0 before the first."""

    def watch(self) -> AsyncIterable[registry_pb2.FleetUpdate]:
        return self._stream.watch()

    def apply(self, update: registry_pb2.FleetUpdate) -> None:
        backends = [_backend(backend) for backend in update.backends]
        if update.snapshot:
            self._wire.clear()
            self._fleet.replace_all(backends)
        else:
            self._fleet.change(backends, update.removed_backend_ids)
        for backend in update.backends:
            self._wire[backend.id] = backend
        for backend_id in update.removed_backend_ids:
            self._wire.pop(backend_id, None)
        if update.pools_changed:
            self._pools = list(update.pools)
            self._endpoints.replace_all(
                VirtualEndpoint(pool.name, tuple(pool.hosts), pool.path_prefix) for pool in self._pools
            )
        self.version = update.version

    def dump(self) -> bytes:
        return registry_pb2.FleetUpdate(
            snapshot=True, backends=self._wire.values(), pools=self._pools, pools_changed=True
        ).SerializeToString()

    def restore(self, kept: bytes) -> None:
        try:
            self.apply(registry_pb2.FleetUpdate.FromString(kept))
        except DecodeError as error:
            raise ValueError(str(error)) from error


def _backend(backend: registry_pb2.Backend) -> Backend:
    condition = _CONDITIONS.get(backend.health, Condition.UNKNOWN)
    return Backend(
        id=backend.id,
        name=backend.name,
        url=backend.url.rstrip("/"),
        kind=_KINDS.get(backend.kind, EngineKind.OPENAI),
        pool=backend.pool or "default",
        enabled=backend.enabled,
        is_unhealthy=condition.is_down or condition is Condition.DRAINED,
        is_barred=condition.is_barred or backend.draining,
        has_credential=backend.has_credential,
        models={
            model.name: ModelOnBackend(
                model.name,
                model.context_length if model.HasField("context_length") else None,
                tuple(model.capabilities),
                model.engine_name,
            )
            for model in backend.models
        },
    )
