"""Public keys that sign calls: which API key may trust which. Pure; keeping them is signing_key_store's job.

Whoever owns the private half may what that API key may, and no longer than it may."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from forebay.errors import AlreadyExists, BadInput, NotAllowed, NotPossible
from forebay.signing_keys import LENGTH, fingerprint
from forebay_admin.keys.keys import Key, KeyState, Limits, key_id_from, narrowed

MOST_PER_KEY = 50
_LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class SigningKey:
    public_key: bytes
    name: str
    key: Key
    """The API key that trusts it."""
    created_by: str
    created_at: datetime

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public_key)


@dataclass(frozen=True, slots=True)
class TrustOrder:
    """A public key to be trusted by an API key."""

    key_id: str
    public_key: bytes
    name: str

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public_key)


def order_trust(key_id: str, public_key: bytes, name: str) -> TrustOrder:
    """Raises BadInput for what cannot be meant."""
    name = name.strip()
    if len(public_key) != LENGTH:
        raise BadInput(f"A public ed25519 key has {LENGTH} bytes.")
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise BadInput(f"A signing key's name has at most {_LONGEST_NAME} characters, all of them printable.")
    return TrustOrder(key_id_from(key_id), public_key, name)


def demand_trusting(key: Key, trusts: int, now: datetime) -> None:
    """Raises NotPossible when `key`, which trusts so many, can trust no more."""
    if key.state is KeyState.REVOKED:
        raise NotPossible(f"The key {key.public_id} was revoked: whom it trusts could do nothing.")
    if key.state is KeyState.USER_DISABLED:
        raise NotPossible(f"The user {key.user_name} is disabled: whom their keys trust could do nothing.")
    if key.limits.expires_at is not None and key.limits.expires_at <= now:
        raise NotPossible(f"The key {key.public_id} has expired: whom it trusts could do nothing.")
    if trusts >= MOST_PER_KEY:
        raise NotPossible(f"The key {key.public_id} trusts {trusts} public keys, which is the most.")


def demand_no_wider(limits: Limits, held: Limits) -> None:
    """Raises NotAllowed when the bearer of a key with the limits `held` would reach further by those of another: a stolen or
    lent key could make itself a better one."""
    if narrowed(limits, held, band_was_named=True) != limits:
        raise NotAllowed(
            "The key you use is narrower than that one; use that one, or let your own trust the public key."
        )


def demand_free(before: SigningKey, key: Key, *, sees_all: bool) -> None:
    """Raises AlreadyExists unless what trusts it already is a revoked key of the same user, whose place `key` takes."""
    holder = before.key
    if holder.user_id == key.user_id and holder.state is KeyState.REVOKED and holder.public_id != key.public_id:
        return
    if not sees_all and holder.user_id != key.user_id:
        raise AlreadyExists(
            "Another key trusts this public key already, and it is none of yours. Ask your administrator."
        )
    raise AlreadyExists(
        f"The key {holder.public_id} ({holder.name}) of {holder.user_name} trusts this public key already. "
        f"To change that: `forebay key untrust {before.fingerprint}`."
    )
