"""Keys: who may make which, and what becomes of them. Pure; the secret's form is forebay.keys', keeping it key_store's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from forebay.errors import BadInput, NotAllowed
from forebay.keys import parse_key
from forebay_admin.keys.key_terms import (
    KeyTerms,
    narrowed_terms,
    order_description,
    order_labels,
    order_models,
)
from forebay_admin.people.people import Role, demand_name

LONGEST_LIFE = timedelta(days=36_500)
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
    BLOCKED = "blocked"
    """For a time, or until it is unblocked."""


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
    terms: KeyTerms = field(default_factory=KeyTerms)


@dataclass(frozen=True, slots=True)
class Block:
    reason: str
    """Whoever uses the key is told."""
    until: datetime | None = None
    """From then on the key works again; None: until it is unblocked."""

    def holds(self, now: datetime) -> bool:
        return self.until is None or now < self.until


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
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    block: Block | None = None
    """As it was made: whether it still holds is a question of time."""
    old_secret_until: datetime | None = None
    """Until then the secret before works too."""
    last_used_at: datetime | None = None
    """To the minute, where somebody looked it up."""

    @property
    def state(self) -> KeyState:
        return state_of(is_revoked=self.revoked_at is not None, user_disabled=self.user_disabled, block=self.block)


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
    block: Block | None = None
    old_secret_hmac: bytes = b""
    """Of the secret before, which works until `old_secret_until`."""
    old_secret_until: datetime | None = None

    def secrets(self, now: datetime) -> tuple[bytes, ...]:
        """What is stored of the secrets that work."""
        if self.old_secret_until is None or now >= self.old_secret_until:
            return (self.secret_hmac,)
        return self.secret_hmac, self.old_secret_hmac


@dataclass(frozen=True, slots=True)
class KeyOrder:
    """A key to be made. An empty `user` is the caller."""

    user: str
    name: str
    limits: Limits
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


def state_of(*, is_revoked: bool, user_disabled: bool, block: Block | None) -> KeyState:
    """What stands in its way for longest."""
    if is_revoked:
        return KeyState.REVOKED
    if user_disabled:
        return KeyState.USER_DISABLED
    return KeyState.BLOCKED if block is not None else KeyState.ACTIVE


def order_key(
    *,
    user: str,
    name: str,
    allowed_models: Sequence[str],
    band_cap: Band | None,
    pool: str,
    expires_in_s: int | None,
    now: datetime,
    terms: KeyTerms | None = None,
    description: str = "",
    labels: Mapping[str, str] | None = None,
) -> KeyOrder:
    """Raises BadInput for what cannot be meant."""
    terms = terms or KeyTerms()
    if terms.other_pools and not pool:
        raise BadInput("A key that may go to other pools has one of its own: say which.")
    if pool in terms.other_pools:
        raise BadInput(f"The pool {pool} is the key's own and no other.")
    if pool:
        demand_name(pool, "A pool's name")
    return KeyOrder(
        user.strip(),
        order_name(name),
        Limits(
            allowed_models=order_models(allowed_models),
            band_cap=band_cap or Band.INTERACTIVE,
            terms=terms,
            pool=pool,
            expires_at=order_expiry(expires_in_s, now),
        ),
        order_description(description),
        order_labels({}, labels or {}),
    )


def order_name(name: str) -> str:
    """Raises BadInput."""
    name = name.strip() or "key"
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise BadInput(f"A key's name has at most {_LONGEST_NAME} characters, all of them printable.")
    return name


def order_expiry(expires_in_s: int | None, now: datetime) -> datetime | None:
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
    pool, terms = wanted.pool or held.pool, narrowed_terms(wanted.terms, held.terms)
    if not wanted.pool and not terms.other_pools:
        terms = replace(terms, other_pools=held.terms.other_pools)
    if not {pool, *terms.other_pools} <= {held.pool, *held.terms.other_pools}:
        its = ", ".join((held.pool or "default", *held.terms.other_pools))
        raise NotAllowed(f"The key you use is for the pool {its}; a new one is too.")
    expires_at = wanted.expires_at or held.expires_at
    if held.expires_at is not None and expires_at is not None and expires_at > held.expires_at:
        raise NotAllowed("The key you use expires before that; a new one may not outlive it.")
    return Limits(models, band, pool, expires_at, terms)


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
