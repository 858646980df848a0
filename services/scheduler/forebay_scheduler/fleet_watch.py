"""The fleet, from the registry, for the core."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Sequence

from google.protobuf.message import DecodeError

from forebay.clock import Clock
from forebay.registries import FleetStream
from forebay.rpc import Peer
from forebay.wire.v1 import registry_pb2
from forebay_scheduler.backend import Backend
from forebay_scheduler.events import BackendsReported, Event, FleetChanged
from forebay_scheduler.request import BackendId
from forebay_scheduler.wire import read_backend


class FleetWatch:
    name = "fleet"
    owner = "registry"

    def __init__(self, registries: Sequence[Peer], clock: Clock, happened: Callable[[Iterable[Event]], None]) -> None:
        self._stream = FleetStream(registries)
        self._clock = clock
        self._happened = happened
        self._backends: dict[str, registry_pb2.Backend] = {}
        self._known: dict[BackendId, Backend] = {}
        self._is_known = False

    def watch(self) -> AsyncIterable[registry_pb2.FleetUpdate]:
        return self._stream.watch()

    def apply(self, update: registry_pb2.FleetUpdate) -> None:
        if update.snapshot:
            self._backends.clear()
        for backend in update.backends:
            self._backends[backend.id] = backend
        for backend_id in update.removed_backend_ids:
            self._backends.pop(backend_id, None)
        backends = {BackendId(backend.id): read_backend(backend, self._clock) for backend in update.backends}
        is_report = self._is_known and not update.snapshot and not update.removed_backend_ids
        if is_report and all(
            (known := self._known.get(id_)) is not None and backend.has_shape_of(known)
            for id_, backend in backends.items()
        ):
            # Each probe of each backend comes here: with a thousand of them the whole fleet is not looked at each time.
            self._known.update(backends)
            self._happened((BackendsReported(tuple(backends.values())),))
            return
        self._is_known = True
        if update.snapshot:
            self._known.clear()
        self._known.update(backends)
        for gone in update.removed_backend_ids:
            self._known.pop(BackendId(gone), None)
        self._happened(self.known())

    def known(self) -> list[Event]:
        """All of it, for a core that starts; nothing before anything was told."""
        if not self._is_known:
            return []
        return [FleetChanged(tuple(self._known.values()))]

    def dump(self) -> bytes:
        return registry_pb2.FleetUpdate(snapshot=True, backends=self._backends.values()).SerializeToString()

    def restore(self, kept: bytes) -> None:
        try:
            self.apply(registry_pb2.FleetUpdate.FromString(kept))
        except DecodeError as error:
            raise ValueError(str(error)) from error
