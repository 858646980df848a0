"""Keys: who may make which, and what becomes of them. Pure; the secret's form is forebay.keys', keeping it key_store's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from forebay.errors import BadInput, NotAllowed
from forebay.keys import parse_key
from forebay_admin.people.people import Role, demand_name

LONGEST_LIFE = timedelta(days=36_500)
_MOST_MODELS = 200
_LONGEST_PATTERN = 256
_LONGEST_NAME = 100


class Band(StrEnum):
    """Most urgent first."""

    SYSTEM = "system"
    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BATCH = "batch"


_URGENCY = {band: place for place, band in enumerate(Band)}


class KeyState(StrEnum):
    ACTIVE = "active"
    REVOKED = "revoked"
    USER_DISABLED = "user_disabled"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a key allows its bearer."""

    allowed_models: tuple[str, ...] = ()
    """Names, or patterns with `*`; none allows every model."""
    band_cap: Band = Band.INTERACTIVE
    """The most urgent band that its requests may ask for."""
    pool: str = ""
    """Where its requests queue; empty is the default pool."""
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Key:
    public_id: str
    name: str
    user_id: str
    user_name: str
    limits: Limits
    created_by: str
    created_at: datetime
    revoked_at: datetime | None = None
    user_disabled: bool = False
    cut_running: bool = False
    """Its revocation ends running requests too, not only those that wait."""
    weight_milli: int = 1000
    """Share against its user's other keys."""

    @property
    def state(self) -> KeyState:
        if self.revoked_at is not None:
            return KeyState.REVOKED
        return KeyState.USER_DISABLED if self.user_disabled else KeyState.ACTIVE


@dataclass(frozen=True, slots=True)
class Principal:
    """Everything that is needed to decide about the bearer of a key, in memory."""

    key_id: str
    secret_hmac: bytes
    user_id: str
    user_name: str
    group_id: str
    role: Role
    state: KeyState
    limits: Limits
    cut_running: bool = False
    """As in Key."""
    signing_keys: tuple[bytes, ...] = ()
    """Public keys whose owners may what this key may."""


@dataclass(frozen=True, slots=True)
class KeyOrder:
    """A key to be made. An empty `user` is the caller."""

    user: str
    name: str
    limits: Limits


def order_key(
    *,
    user: str,
    name: str,
    allowed_models: Sequence[str],
    band_cap: Band | None,
    pool: str,
    expires_in_s: int | None,
    now: datetime,
) -> KeyOrder:
    """Raises BadInput for what cannot be meant."""
    name = name.strip() or "key"
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise BadInput(f"A key's name has at most {_LONGEST_NAME} characters, all of them printable.")
    if len(allowed_models) > _MOST_MODELS:
        raise BadInput(f"A key names at most {_MOST_MODELS} models; use a pattern such as llama* for many.")
    for pattern in allowed_models:
        if not pattern.strip() or len(pattern) > _LONGEST_PATTERN or not pattern.isprintable():
            raise BadInput(f"{pattern!r} is not the name of a model or a pattern of names.")
    if pool:
        demand_name(pool, "A pool's name")
    return KeyOrder(
        user.strip(),
        name,
        Limits(
            allowed_models=tuple(dict.fromkeys(p.strip() for p in allowed_models)),
            band_cap=band_cap or Band.INTERACTIVE,
            pool=pool,
            expires_at=_expiry(expires_in_s, now),
        ),
    )


def _expiry(expires_in_s: int | None, now: datetime) -> datetime | None:
    if expires_in_s is None:
        return None
    if expires_in_s == 0:
        raise BadInput("A key that expires in 0 seconds has expired already.")
    if expires_in_s > LONGEST_LIFE.total_seconds():
        raise BadInput("A key lives at most 100 years; leave the expiry out for one that does not expire.")
    return now + timedelta(seconds=expires_in_s)


def narrowed(wanted: Limits, held: Limits, band_was_named: bool) -> Limits:
    """The limits of a key that the bearer of a key with the limits `held` makes for themselves: never wider than these, or
    a stolen or lent key could make itself a better one. What was not asked for is inherited. Raises NotAllowed."""
    models = wanted.allowed_models or held.allowed_models
    if held.allowed_models and not set(models) <= set(held.allowed_models):
        raise NotAllowed(f"The key you use allows only {', '.join(held.allowed_models)}; a new one may not allow more.")
    band = wanted.band_cap
    if _URGENCY[band] < _URGENCY[held.band_cap]:
        if band_was_named:
            raise NotAllowed(f"The key you use is capped at the band {held.band_cap}; a new one may not be above it.")
        band = held.band_cap
    pool = wanted.pool or held.pool
    if pool != held.pool:
        raise NotAllowed(f"The key you use is for the pool {held.pool or 'default'}; a new one is too.")
    expires_at = wanted.expires_at or held.expires_at
    if held.expires_at is not None and expires_at is not None and expires_at > held.expires_at:
        raise NotAllowed("The key you use expires before that; a new one may not outlive it.")
    return Limits(models, band, pool, expires_at)


def key_id_from(text: str) -> str:
    """The public id in `text`, which is one or a whole key. Raises BadInput."""
    text = text.strip()
    whole = parse_key(text)
    if whole is not None:
        return whole.public_id
    public_id = text.removeprefix("fb-").rstrip("-")
    if not public_id or not public_id.isalnum() or len(public_id) > 64:
        raise BadInput("Give a key's public id (12 hexadecimal digits, as `forebay key list` shows) or the whole key.")
    return public_id


def revoked(key: Key, now: datetime, *, cut_running: bool = False) -> Key:
    """The key after its revocation. When it was revoked before, that moment stands; whether running requests are cut can
    still become true, and never false again."""
    return replace(key, revoked_at=key.revoked_at or now, cut_running=key.cut_running or cut_running)
