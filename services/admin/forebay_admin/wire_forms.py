"""Admin's own types as protobuf, and back. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from forebay.clock import micros
from forebay.errors import BadInput
from forebay.signing_keys import to_line
from forebay.wire.v1 import admin_pb2, types_pb2
from forebay_admin.keys.keys import Band, Key, KeyState, Principal
from forebay_admin.keys.signing_keys import SigningKey
from forebay_admin.keys.terms_wire import terms_to_wire
from forebay_admin.people.people import Role, User

_ROLES = {
    Role.MEMBER: admin_pb2.ROLE_MEMBER,
    Role.AUDITOR: admin_pb2.ROLE_AUDITOR,
    Role.OPERATOR: admin_pb2.ROLE_OPERATOR,
    Role.ADMIN: admin_pb2.ROLE_ADMIN,
}
_STATES = {
    KeyState.ACTIVE: admin_pb2.KEY_STATE_ACTIVE,
    KeyState.REVOKED: admin_pb2.KEY_STATE_REVOKED,
    KeyState.USER_DISABLED: admin_pb2.KEY_STATE_USER_DISABLED,
    KeyState.BLOCKED: admin_pb2.KEY_STATE_BLOCKED,
}
_BANDS = {
    Band.SYSTEM: types_pb2.BAND_SYSTEM,
    Band.INTERACTIVE: types_pb2.BAND_INTERACTIVE,
    Band.STANDARD: types_pb2.BAND_STANDARD,
    Band.BATCH: types_pb2.BAND_BATCH,
}


def role_from(value: admin_pb2.Role.ValueType) -> Role | None:
    """None when it was not given. Raises BadInput for one that this version does not know."""
    if value == admin_pb2.ROLE_UNSPECIFIED:
        return None
    for role, number in _ROLES.items():
        if number == value:
            return role
    raise BadInput(f"There is no role {value}; there are {', '.join(Role)}.")


def band_from(value: types_pb2.Band.ValueType) -> Band | None:
    """None when it was not given. Raises BadInput for one that this version does not know."""
    if value == types_pb2.BAND_UNSPECIFIED:
        return None
    for band, number in _BANDS.items():
        if number == value:
            return band
    raise BadInput(f"There is no band {value}; there are {', '.join(Band)}.")


def band_to_wire(band: Band) -> types_pb2.Band.ValueType:
    return _BANDS[band]


def moment(us: int) -> datetime:
    """Raises BadInput for a time beyond what a calendar holds."""
    try:
        return datetime.fromtimestamp(us / 1_000_000, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise BadInput(f"{us} µs since 1970 is not a time.") from error


def moment_us(at: datetime) -> int:
    return micros(at.timestamp())


def state_from(value: admin_pb2.KeyState.ValueType) -> KeyState | None:
    """None when it was not given. Raises BadInput for one that this version does not know."""
    if value == admin_pb2.KEY_STATE_UNSPECIFIED:
        return None
    for state, number in _STATES.items():
        if number == value:
            return state
    raise BadInput(f"There is no state {value}; there are {', '.join(KeyState)}.")


def principal_to_wire(principal: Principal) -> admin_pb2.KeyPrincipal:
    limits, block = principal.limits, principal.block
    return admin_pb2.KeyPrincipal(
        key_id=principal.key_id,
        secret_hmac=principal.secret_hmac,
        user_id=principal.user_id,
        user_name=principal.user_name,
        group_id=principal.group_id,
        role=_ROLES[principal.role],
        state=_STATES[principal.state],
        expires_at_us=moment_us(limits.expires_at) if limits.expires_at is not None else None,
        allowed_models=limits.allowed_models,
        pool=limits.pool,
        band_cap=_BANDS[limits.band_cap],
        cut_running=principal.cut_running,
        signing_keys=principal.signing_keys,
        terms=terms_to_wire(limits.terms),
        old_secret_hmac=principal.old_secret_hmac,
        old_secret_until_us=_maybe_us(principal.old_secret_until) or 0,
        blocked_until_us=_maybe_us(block.until) if block is not None else None,
        block_reason=block.reason if block is not None else "",
    )


def _maybe_us(at: datetime | None) -> int | None:
    return moment_us(at) if at is not None else None


def user_to_wire(user: User) -> admin_pb2.User:
    return admin_pb2.User(
        id=user.id,
        name=user.name,
        group_id=user.group_id,
        group_name=user.group_name,
        role=_ROLES[user.role],
        created_at_us=moment_us(user.created_at),
        disabled=user.disabled,
        weight_milli=user.weight_milli,
        max_queued=user.max_queued,
        paused=user.paused,
        is_service_account=user.is_service_account,
    )


def key_to_wire(key: Key) -> admin_pb2.Key:
    limits, block = key.limits, key.block
    return admin_pb2.Key(
        id=key.public_id,
        name=key.name,
        user_id=key.user_id,
        user_name=key.user_name,
        state=_STATES[key.state],
        created_at_us=moment_us(key.created_at),
        expires_at_us=moment_us(limits.expires_at) if limits.expires_at is not None else None,
        revoked_at_us=moment_us(key.revoked_at) if key.revoked_at is not None else None,
        allowed_models=limits.allowed_models,
        band_cap=_BANDS[limits.band_cap],
        pool=limits.pool,
        weight_milli=key.weight_milli,
        description=key.description,
        labels=key.labels,
        terms=terms_to_wire(limits.terms),
        block_reason=block.reason if block is not None else "",
        blocked_until_us=_maybe_us(block.until) if block is not None else None,
        old_secret_until_us=_maybe_us(key.old_secret_until),
        last_used_at_us=_maybe_us(key.last_used_at),
    )


def signing_key_to_wire(signing_key: SigningKey) -> admin_pb2.SigningKey:
    key = signing_key.key
    return admin_pb2.SigningKey(
        fingerprint=signing_key.fingerprint,
        public_key=to_line(signing_key.public_key),
        name=signing_key.name,
        key_id=key.public_id,
        key_name=key.name,
        user_name=key.user_name,
        key_state=_STATES[key.state],
        created_by=signing_key.created_by,
        created_at_us=moment_us(signing_key.created_at),
    )


def credential_to_wire(backend_id: str, bearers: Mapping[str, str]) -> admin_pb2.BackendCredential:
    """`bearers`: by label, the oldest first; at least one."""
    return admin_pb2.BackendCredential(
        backend_id=backend_id,
        bearer=next(iter(bearers.values())),
        all=[admin_pb2.LabelledBearer(label=label, bearer=bearer) for label, bearer in bearers.items()],
    )
