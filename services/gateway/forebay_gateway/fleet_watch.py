"""The fleet, from the registry."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any

from google.protobuf.message import DecodeError

from forebay.rpc import Peer
from forebay.wire.v1 import registry_pb2, registry_pb2_grpc, types_pb2
from forebay_gateway.fleet import Backend, EngineKind, Fleet, ModelOnBackend

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


class FleetWatch:
    name = "fleet"
    owner = "registry"

    def __init__(self, peer: Peer, fleet: Fleet) -> None:
        self._stub: Any = registry_pb2_grpc.RegistryStub(peer.channel)
        self._metadata = peer.metadata
        self._fleet = fleet
        self._wire: dict[str, registry_pb2.Backend] = {}
        self.version = 0
        """Of the last update, by the registry's count; 0 before the first."""

    def watch(self) -> AsyncIterable[registry_pb2.FleetUpdate]:
        calls: AsyncIterable[registry_pb2.FleetUpdate] = self._stub.WatchFleet(
            registry_pb2.WatchFleetRequest(), metadata=self._metadata
        )
        return calls

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
        self.version = update.version

    def dump(self) -> bytes:
        return registry_pb2.FleetUpdate(snapshot=True, backends=self._wire.values()).SerializeToString()

    def restore(self, kept: bytes) -> None:
        try:
            self.apply(registry_pb2.FleetUpdate.FromString(kept))
        except DecodeError as error:
            raise ValueError(str(error)) from error


def _backend(backend: registry_pb2.Backend) -> Backend:
    return Backend(
        id=backend.id,
        name=backend.name,
        url=backend.url.rstrip("/"),
        kind=_KINDS.get(backend.kind, EngineKind.OPENAI),
        pool=backend.pool or "default",
        enabled=backend.enabled,
        is_unhealthy=backend.health == registry_pb2.BACKEND_HEALTH_UNHEALTHY,
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
