"""What admin says of users: weights and limits, for the core."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any

from google.protobuf.message import DecodeError

from forebay.rpc import Peer
from forebay.wire.v1 import admin_pb2, admin_pb2_grpc
from forebay_scheduler.events import Event, PolicyChanged, UserLimits
from forebay_scheduler.request import UserId


class PolicyWatch:
    name = "policy"
    owner = "admin"

    def __init__(self, peer: Peer, happened: Callable[[Iterable[Event]], None]) -> None:
        self._stub: Any = admin_pb2_grpc.AdminStub(peer.channel)
        self._metadata = peer.metadata
        self._happened = happened
        self._version = 0
        self._users: dict[str, admin_pb2.UserPolicy] = {}

    def watch(self) -> AsyncIterable[admin_pb2.PolicyUpdate]:
        call: AsyncIterable[admin_pb2.PolicyUpdate] = self._stub.WatchPolicy(
            admin_pb2.WatchRequest(known_version=self._version), metadata=self._metadata
        )
        return call

    def apply(self, update: admin_pb2.PolicyUpdate) -> None:
        removed = set(update.removed_user_ids)
        if update.snapshot:
            removed |= self._users.keys() - {user.user_id for user in update.users}
        for user_id in removed:
            self._users.pop(user_id, None)
        for user in update.users:
            self._users[user.user_id] = user
        self._version = update.version
        changed = PolicyChanged(tuple(map(_limits, update.users)), tuple(UserId(user_id) for user_id in removed))
        self._happened((changed,))

    def dump(self) -> bytes:
        whole = admin_pb2.PolicyUpdate(version=self._version, snapshot=True, users=self._users.values())
        return whole.SerializeToString()

    def restore(self, kept: bytes) -> None:
        try:
            self.apply(admin_pb2.PolicyUpdate.FromString(kept))
        except DecodeError as error:
            raise ValueError(str(error)) from error


def _limits(user: admin_pb2.UserPolicy) -> UserLimits:
    return UserLimits(
        UserId(user.user_id),
        weight=user.weight_milli / 1000 if user.weight_milli else 1.0,
        max_queued=user.max_queued or None,
    )
