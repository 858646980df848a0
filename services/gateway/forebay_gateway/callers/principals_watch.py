"""The keys, from admin. A revocation is in force in the loop turn in which it arrives.

Each is kept as it came, with every field, those that this version does not know included, and read when somebody calls with
it: of a hundred thousand few are in use at a time."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from forebay.rpc import Peer
from forebay.uncollected import uncollected
from forebay.wire.v1 import admin_pb2, admin_pb2_grpc, key_terms_pb2, types_pb2
from forebay_gateway.callers.key_terms import AuditPolicy, KeyTerms, read_networks
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
    admin_pb2.KEY_STATE_BLOCKED: KeyState.BLOCKED,
}
_AUDITS = {
    key_terms_pb2.AUDIT_POLICY_OFF: AuditPolicy.OFF,
    key_terms_pb2.AUDIT_POLICY_METADATA: AuditPolicy.METADATA,
    key_terms_pb2.AUDIT_POLICY_FULL: AuditPolicy.FULL,
    key_terms_pb2.AUDIT_POLICY_SAMPLED: AuditPolicy.SAMPLED,
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
        self._kept: dict[str, _WireKey] = {}

    def watch(self) -> AsyncIterable[admin_pb2.PrincipalsUpdate]:
        request = admin_pb2.WatchRequest(known_version=self._principals.version)
        calls: AsyncIterable[admin_pb2.PrincipalsUpdate] = self._stub.WatchPrincipals(request, metadata=self._metadata)
        return calls

    def apply(self, update: admin_pb2.PrincipalsUpdate) -> None:
        with uncollected():
            keys = [_WireKey(key.key_id, key.SerializeToString(), tuple(key.signing_keys)) for key in update.keys]
        if update.snapshot:
            self._kept.clear()
            ended = self._principals.replace_all(keys, update.version)
        else:
            ended = self._principals.change(keys, update.removed_key_ids, update.version)
        self._kept.update((key.key_id, key) for key in keys)
        for key_id in update.removed_key_ids:
            self._kept.pop(key_id, None)
        if ended:
            self._on_ended(ended)
        cut = [key.key_id for key in update.keys if key.cut_running and key.state != admin_pb2.KEY_STATE_ACTIVE]
        if cut:
            self._on_cut(cut)

    def dump(self) -> bytes:
        head = admin_pb2.PrincipalsUpdate(version=self._principals.version, snapshot=True).SerializeToString()
        return head + b"".join(map(_as_field, self._kept.values()))

    def restore(self, kept: bytes) -> None:
        try:
            update = admin_pb2.PrincipalsUpdate.FromString(kept)
        except DecodeError as error:
            raise ValueError(str(error)) from error
        self.apply(update)


class _WireKey(NamedTuple):
    key_id: str
    written: bytes
    signing_keys: tuple[bytes, ...]

    def known(self) -> KnownKey:
        return _known_key(admin_pb2.KeyPrincipal.FromString(self.written))


_TAG = bytes([admin_pb2.PrincipalsUpdate.DESCRIPTOR.fields_by_name["keys"].number << 3 | 2])


def _as_field(key: _WireKey) -> bytes:
    """One more of an update's keys: what is written one after the other in protobuf is one message."""
    length, size = b"", len(key.written)
    while size > 0x7F:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    return _TAG + length + bytes([size]) + key.written


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
            terms=_terms(key.terms) if key.HasField("terms") else None,
        ),
        secret_hmac=key.secret_hmac,
        state=_STATES.get(key.state, KeyState.REVOKED),
        expires_at=key.expires_at_us / 1_000_000 if key.HasField("expires_at_us") else None,
        signing_keys=tuple(key.signing_keys),
        old_secret_hmac=key.old_secret_hmac,
        old_secret_until=key.old_secret_until_us / 1_000_000 if key.old_secret_hmac else 0.0,
        blocked_until=key.blocked_until_us / 1_000_000 if key.HasField("blocked_until_us") else None,
        block_reason=key.block_reason,
    )


def _terms(terms: key_terms_pb2.KeyTerms) -> KeyTerms:
    return KeyTerms(
        denied_models=tuple(terms.denied_models),
        other_pools=frozenset(terms.other_pools),
        networks=read_networks(terms.addresses),
        calls=frozenset(terms.calls),
        max_output_tokens=terms.max_output_tokens if terms.HasField("max_output_tokens") else None,
        max_context_tokens=terms.max_context_tokens if terms.HasField("max_context_tokens") else None,
        audit=_AUDITS.get(terms.audit),
        audit_permille=terms.audit_permille,
    )
