"""The engines' own keys, from admin: in memory and in a sealed file, and on the wire to their engine only."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any

from google.protobuf.message import DecodeError

from forebay.rpc import Peer
from forebay.wire.v1 import admin_pb2, admin_pb2_grpc


class CredentialsWatch:
    name = "credentials"
    owner = "admin"

    def __init__(self, peer: Peer) -> None:
        self._stub: Any = admin_pb2_grpc.AdminStub(peer.channel)
        self._metadata = peer.metadata
        self._version = 0
        self._bearers: dict[str, str] = {}

    def get(self, backend_id: str) -> str | None:
        return self._bearers.get(backend_id)

    def watch(self) -> AsyncIterable[admin_pb2.CredentialsUpdate]:
        request = admin_pb2.WatchRequest(known_version=self._version)
        calls: AsyncIterable[admin_pb2.CredentialsUpdate] = self._stub.WatchCredentials(
            request, metadata=self._metadata
        )
        return calls

    def apply(self, update: admin_pb2.CredentialsUpdate) -> None:
        if update.snapshot:
            self._bearers.clear()
        for credential in update.credentials:
            self._bearers[credential.backend_id] = credential.bearer
        for backend_id in update.removed_backend_ids:
            self._bearers.pop(backend_id, None)
        self._version = update.version

    def dump(self) -> bytes:
        return admin_pb2.CredentialsUpdate(
            version=self._version,
            snapshot=True,
            credentials=[
                admin_pb2.BackendCredential(backend_id=backend_id, bearer=bearer)
                for backend_id, bearer in self._bearers.items()
            ],
        ).SerializeToString()

    def restore(self, kept: bytes) -> None:
        try:
            self.apply(admin_pb2.CredentialsUpdate.FromString(kept))
        except DecodeError as error:
            raise ValueError(str(error)) from error
