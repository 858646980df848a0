"""The fleet, from the registry, for the core."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any

from google.protobuf.message import DecodeError

from forebay.clock import Clock
from forebay.rpc import Peer
from forebay.wire.v1 import registry_pb2, registry_pb2_grpc
from forebay_scheduler.events import Event, FleetChanged
from forebay_scheduler.wire import read_backend


class FleetWatch:
    name = "fleet"
    owner = "registry"

    def __init__(self, peer: Peer, clock: Clock, happened: Callable[[Iterable[Event]], None]) -> None:
        self._stub: Any = registry_pb2_grpc.RegistryStub(peer.channel)
        self._metadata = peer.metadata
        self._clock = clock
        self._happened = happened
        self._backends: dict[str, registry_pb2.Backend] = {}

    def watch(self) -> AsyncIterable[registry_pb2.FleetUpdate]:
        call: AsyncIterable[registry_pb2.FleetUpdate] = self._stub.WatchFleet(
            registry_pb2.WatchFleetRequest(), metadata=self._metadata
        )
        return call

    def apply(self, update: registry_pb2.FleetUpdate) -> None:
        if update.snapshot:
            self._backends.clear()
        for backend in update.backends:
            self._backends[backend.id] = backend
        for backend_id in update.removed_backend_ids:
            self._backends.pop(backend_id, None)
        self._happened((FleetChanged(tuple(read_backend(b, self._clock) for b in self._backends.values())),))

    def dump(self) -> bytes:
        return registry_pb2.FleetUpdate(snapshot=True, backends=self._backends.values()).SerializeToString()

    def restore(self, kept: bytes) -> None:
        try:
            self.apply(registry_pb2.FleetUpdate.FromString(kept))
        except DecodeError as error:
            raise ValueError(str(error)) from error
