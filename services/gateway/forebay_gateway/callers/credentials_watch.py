"""The engines' own keys, from admin: in memory and in a sealed file, and on the wire to their engine only."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any

from google.protobuf.message import DecodeError

from forebay.rpc import Peer
from forebay.wire.v1 import admin_pb2, admin_pb2_grpc
from forebay_gateway.credential import Credential


class CredentialsWatch:
    name = "credentials"
    owner = "admin"

    def __init__(self, peer: Peer) -> None:
        self._stub: Any = admin_pb2_grpc.AdminStub(peer.channel)
        self._metadata = peer.metadata
        self._version = 0
        self._held: dict[str, tuple[Credential, ...]] = {}

    def held(self, backend_id: str) -> tuple[Credential, ...]:
        """All of a backend's, each with a label of its own."""
        return self._held.get(backend_id, ())

    def watch(self) -> AsyncIterable[admin_pb2.CredentialsUpdate]:
        request = admin_pb2.WatchRequest(known_version=self._version)
        calls: AsyncIterable[admin_pb2.CredentialsUpdate] = self._stub.WatchCredentials(
            request, metadata=self._metadata
        )
        return calls

    def apply(self, update: admin_pb2.CredentialsUpdate) -> None:
        if update.snapshot:
            self._held.clear()
        for told in update.credentials:
            self._held[told.backend_id] = _read(told)
        for backend_id in update.removed_backend_ids:
            self._held.pop(backend_id, None)
        self._version = update.version

    def dump(self) -> bytes:
        return admin_pb2.CredentialsUpdate(
            version=self._version,
            snapshot=True,
            credentials=[_written(backend_id, held) for backend_id, held in self._held.items()],
        ).SerializeToString()

    def restore(self, kept: bytes) -> None:
        try:
            self.apply(admin_pb2.CredentialsUpdate.FromString(kept))
        except DecodeError as error:
            raise ValueError(str(error)) from error


def _read(told: admin_pb2.BackendCredential) -> tuple[Credential, ...]:
    if not told.all:  # by an admin, or in a snapshot, from before there could be several
        return (Credential("default", told.bearer),)
    return tuple({one.label: Credential(one.label, one.bearer) for one in told.all}.values())


def _written(backend_id: str, held: tuple[Credential, ...]) -> admin_pb2.BackendCredential:
    return admin_pb2.BackendCredential(
        backend_id=backend_id,
        bearer=held[0].secret,
        all=[admin_pb2.LabelledBearer(label=one.label, bearer=one.secret) for one in held],
    )
