"""The keys, from admin. A revocation is in force in the loop turn in which it arrives."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from typing import Any

from google.protobuf.message import DecodeError

from forebay.rpc import Peer
from forebay.wire.v1 import admin_pb2, admin_pb2_grpc, types_pb2
from forebay_gateway.callers.principals import Band, KeyState, KnownKey, Principal, Principals, Role

_ROLES = {
    admin_pb2.ROLE_MEMBER: Role.MEMBER,
    admin_pb2.ROLE_AUDITOR: Role.AUDITOR,
    admin_pb2.ROLE_OPERATOR: Role.OPERATOR,
    admin_pb2.ROLE_ADMIN: Role.ADMIN,
}
_STATES = {
    admin_pb2.KEY_STATE_ACTIVE: KeyState.ACTIVE,
    admin_pb2.KEY_STATE_REVOKED: KeyState.REVOKED,
    admin_pb2.KEY_STATE_USER_DISABLED: KeyState.USER_DISABLED,
}
_BANDS = {
    types_pb2.BAND_SYSTEM: Band.SYSTEM,
    types_pb2.BAND_INTERACTIVE: Band.INTERACTIVE,
    types_pb2.BAND_STANDARD: Band.STANDARD,
    types_pb2.BAND_BATCH: Band.BATCH,
}


class PrincipalsWatch:
    name = "principals"
    owner = "admin"

    def __init__(
        self,
        peer: Peer,
        principals: Principals,
        on_ended: Callable[[list[str]], None],
        on_cut: Callable[[list[str]], None],
    ) -> None:
        """`on_ended`: called with the ids of keys that do not work any more. `on_cut`: with those whose running requests
        have to end too, perhaps once more: a cut that came while admin could not be heard is made up for that way."""
        self._stub: Any = admin_pb2_grpc.AdminStub(peer.channel)
        self._metadata = peer.metadata
        self._principals = principals
        self._on_ended = on_ended
        self._on_cut = on_cut
        self._wire: dict[str, admin_pb2.KeyPrincipal] = {}
        """As they came, to be kept on disk with every field, those that this version does not know included."""

    def watch(self) -> AsyncIterable[admin_pb2.PrincipalsUpdate]:
        request = admin_pb2.WatchRequest(known_version=self._principals.version)
        calls: AsyncIterable[admin_pb2.PrincipalsUpdate] = self._stub.WatchPrincipals(request, metadata=self._metadata)
        return calls

    def apply(self, update: admin_pb2.PrincipalsUpdate) -> None:
        keys = [_known_key(key) for key in update.keys]
        if update.snapshot:
            self._wire.clear()
            ended = self._principals.replace_all(keys, update.version)
        else:
            ended = self._principals.change(keys, update.removed_key_ids, update.version)
        for key in update.keys:
            self._wire[key.key_id] = key
        for key_id in update.removed_key_ids:
            self._wire.pop(key_id, None)
        if ended:
            self._on_ended(ended)
        cut = [key.principal.key_id for key in keys if key.is_cut]
        if cut:
            self._on_cut(cut)

    def dump(self) -> bytes:
        return admin_pb2.PrincipalsUpdate(
            version=self._principals.version, snapshot=True, keys=self._wire.values()
        ).SerializeToString()

    def restore(self, kept: bytes) -> None:
        try:
            update = admin_pb2.PrincipalsUpdate.FromString(kept)
        except DecodeError as error:
            raise ValueError(str(error)) from error
        self.apply(update)


def _known_key(key: admin_pb2.KeyPrincipal) -> KnownKey:
    """Words that this version does not know are read as the least: a key without rights, not active."""
    return KnownKey(
        principal=Principal(
            key_id=key.key_id,
            user_id=key.user_id,
            user_name=key.user_name,
            group_id=key.group_id,
            role=_ROLES.get(key.role, Role.MEMBER),
            allowed_models=frozenset(key.allowed_models),
            pool=key.pool or "default",
            is_bound=bool(key.pool),
            band_cap=_BANDS.get(key.band_cap, Band.STANDARD),
        ),
        secret_hmac=key.secret_hmac,
        state=_STATES.get(key.state, KeyState.REVOKED),
        expires_at=key.expires_at_us / 1_000_000 if key.HasField("expires_at_us") else None,
        cut_running=key.cut_running,
        signing_keys=tuple(key.signing_keys),
    )
