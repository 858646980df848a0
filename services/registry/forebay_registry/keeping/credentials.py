"""The engines' own keys, from admin: in memory and in a sealed file, which `forebay.follow` keeps.

They are sent to the engines they belong to and appear nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from forebay.rpc import Peer
from forebay.wire.v1.admin_pb2 import BackendCredential, CredentialsUpdate, LabelledBearer, WatchRequest
from forebay.wire.v1.admin_pb2_grpc import AdminStub
from forebay_registry.backend import BackendId


class Credentials:
    name = "credentials"
    owner = "admin"

    def __init__(self, peer: Peer, tell: Callable[[Mapping[BackendId, tuple[str, ...]]], None]) -> None:
        """`tell` hears all credentials whenever any of them changes."""
        self._stub: Any = AdminStub(peer.channel)
        self._metadata = peer.metadata
        self._tell = tell
        self._held: dict[BackendId, tuple[str, ...]] = {}

    def watch(self) -> AsyncIterable[CredentialsUpdate]:
        # A snapshot each time: there are few of them, and no version is ever compared across a restore of admin's database.
        call: AsyncIterable[CredentialsUpdate] = self._stub.WatchCredentials(WatchRequest(), metadata=self._metadata)
        return call

    def apply(self, update: CredentialsUpdate) -> None:
        held = {} if update.snapshot else dict(self._held)
        for backend_id in update.removed_backend_ids:
            held.pop(BackendId(backend_id), None)
        held |= {BackendId(c.backend_id): _bearers_of(c) for c in update.credentials if c.bearer}
        if held != self._held:
            self._held = held
            self._tell(held)

    def dump(self) -> bytes:
        return CredentialsUpdate(
            snapshot=True,
            credentials=[
                BackendCredential(
                    backend_id=backend_id,
                    bearer=held[0],
                    all=[LabelledBearer(label=str(number), bearer=bearer) for number, bearer in enumerate(held)],
                )
                for backend_id, held in self._held.items()
            ],
        ).SerializeToString()

    def restore(self, kept: bytes) -> None:
        try:
            self.apply(CredentialsUpdate.FromString(kept))
        except DecodeError as error:
            raise ValueError(str(error)) from error


def _bearers_of(told: BackendCredential) -> tuple[str, ...]:
    """By an admin, or in a snapshot, from before there could be several, there is one."""
    return tuple(one.bearer for one in told.all) or (told.bearer,)
