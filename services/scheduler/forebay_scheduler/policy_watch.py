"""What admin says of people, keys, models and pools, kept whole so that it can be stored, told to the core as it changes."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from google.protobuf.message import DecodeError

from forebay.rpc import Peer
from forebay.wire.v1 import admin_pb2, admin_pb2_grpc
from forebay_scheduler.events import Event, PolicyChanged
from forebay_scheduler.policy_wire import read_group, read_key, read_model, read_pool, read_price, read_user
from forebay_scheduler.request import GroupId, KeyId, PoolName, UserId

T = TypeVar("T")


class PolicyWatch:
    name = "policy"
    owner = "admin"

    def __init__(self, peer: Peer, happened: Callable[[Iterable[Event]], None]) -> None:
        self._stub: Any = admin_pb2_grpc.AdminStub(peer.channel)
        self._metadata = peer.metadata
        self._happened = happened
        self._known = KnownPolicy()
        self._is_known = False

    def watch(self) -> AsyncIterable[admin_pb2.PolicyUpdate]:
        # What was kept from an admin that tells no prices has none: all of it anew, from one that does.
        known = self._known.version if self._known.has_prices else 0
        call: AsyncIterable[admin_pb2.PolicyUpdate] = self._stub.WatchPolicy(
            admin_pb2.WatchRequest(known_version=known), metadata=self._metadata
        )
        return call

    def apply(self, update: admin_pb2.PolicyUpdate) -> None:
        self._is_known = True
        self._happened((self._known.apply(update),))

    def known(self) -> list[Event]:
        """All of it, for a core that starts; nothing before anything was told."""
        return [KnownPolicy().apply(self._known.snapshot())] if self._is_known else []

    def dump(self) -> bytes:
        return self._known.snapshot().SerializeToString()

    def restore(self, kept: bytes) -> None:
        try:
            self.apply(admin_pb2.PolicyUpdate.FromString(kept))
        except DecodeError as error:
            raise ValueError(str(error)) from error


class KnownPolicy:
    """All that was said so far."""

    def __init__(self) -> None:
        self.version = 0
        self.has_prices = False
        self._prices: Sequence[admin_pb2.PricePolicy] = ()
        self._users: _Known[admin_pb2.UserPolicy] = _Known(lambda user: user.user_id)
        self._groups: _Known[admin_pb2.GroupPolicy] = _Known(lambda group: group.group_id)
        self._keys: _Known[admin_pb2.KeyPolicy] = _Known(lambda key: key.key_id)
        self._models: _Known[admin_pb2.ModelPolicy] = _Known(lambda model: model.model)
        self._pools: _Known[admin_pb2.PoolPolicy] = _Known(lambda pool: pool.pool)

    def apply(self, update: admin_pb2.PolicyUpdate) -> PolicyChanged:
        """What is missing in a snapshot is removed."""
        is_whole = update.snapshot
        self.version = update.version
        users = self._users.change(update.users, update.removed_user_ids, is_whole)
        groups = self._groups.change(update.groups, update.removed_group_ids, is_whole)
        keys = self._keys.change(update.keys, update.removed_key_ids, is_whole)
        models = self._models.change(update.models, update.removed_models, is_whole)
        pools = self._pools.change(update.pools, update.removed_pools, is_whole)
        if update.prices_told or is_whole:
            self.has_prices, self._prices = update.prices_told, tuple(update.prices)
        return PolicyChanged(
            users=tuple(map(read_user, update.users)),
            removed=tuple(map(UserId, users)),
            groups=tuple(map(read_group, update.groups)),
            removed_groups=tuple(map(GroupId, groups)),
            keys=tuple(map(read_key, update.keys)),
            removed_keys=tuple(map(KeyId, keys)),
            models=tuple(map(read_model, update.models)),
            removed_models=tuple(models),
            pools=tuple(map(read_pool, update.pools)),
            removed_pools=tuple(map(PoolName, pools)),
            prices=tuple(map(read_price, update.prices)) if update.prices_told else None,
        )

    def snapshot(self) -> admin_pb2.PolicyUpdate:
        return admin_pb2.PolicyUpdate(
            version=self.version,
            snapshot=True,
            users=self._users.all(),
            groups=self._groups.all(),
            keys=self._keys.all(),
            models=self._models.all(),
            pools=self._pools.all(),
            prices_told=self.has_prices,
            prices=self._prices,
        )


class _Known(Generic[T]):
    def __init__(self, name_of: Callable[[T], str]) -> None:
        self._name_of = name_of
        self._by_name: dict[str, T] = {}

    def change(self, told: Iterable[T], removed: Iterable[str], is_whole: bool) -> list[str]:
        """The names of those that are gone. One that is told of as well is not."""
        by_name = {self._name_of(one): one for one in told}
        gone = set(removed)
        if is_whole:
            gone |= self._by_name.keys()
        gone -= by_name.keys()
        for name in gone:
            self._by_name.pop(name, None)
        self._by_name.update(by_name)
        return sorted(gone)

    def all(self) -> Iterable[T]:
        return self._by_name.values()
