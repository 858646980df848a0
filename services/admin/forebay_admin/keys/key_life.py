"""What becomes of a key after it was made: restricted, renewed, given a new secret, blocked. Pure; keeping it is key_store's
job. A secret or a life that somebody gives to their own key is never worth more than the key they use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from forebay.errors import BadInput, NotAllowed, NotPossible
from forebay_admin.keys.key_terms import AuditPolicy, order_description, order_labels
from forebay_admin.keys.keys import LONGEST_LIFE, Block, Key, KeyState, Limits, narrowed, order_expiry, order_name

LONGEST_OVERLAP = timedelta(days=30)
_LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What is None stays as it is."""

    name: str | None = None
    description: str | None = None
    put_labels: Mapping[str, str] = field(default_factory=dict)
    removed_labels: tuple[str, ...] = ()
    limits: Mapping[str, Any] = field(default_factory=dict)
    """Fields of Limits → in place of what they are."""
    terms: Mapping[str, Any] = field(default_factory=dict)
    """The same, of its KeyTerms."""

    @property
    def is_empty(self) -> bool:
        says = (self.put_labels, self.removed_labels, self.limits, self.terms)
        return self.name is None and self.description is None and not any(says)


def revised(key: Key, change: KeyChange, *, only_narrower: bool) -> Key:
    """The key afterwards. `only_narrower`: its owner changes it, who may take from it and add nothing. Raises BadInput,
    NotAllowed."""
    if change.is_empty:
        raise BadInput("Say what is to be changed; nothing was named.")
    limits = replace(key.limits, terms=replace(key.limits.terms, **change.terms), **change.limits)
    if limits.terms.other_pools and not limits.pool:
        raise BadInput("A key that may go to other pools has one of its own: say which.")
    if only_narrower:
        demand_audit_unchanged(limits.terms.audit, key.limits.terms.audit)
        if limits != key.limits:
            _demand_within(limits, key.limits)
    return replace(
        key,
        name=key.name if change.name is None else order_name(change.name),
        description=key.description if change.description is None else order_description(change.description),
        labels=order_labels(key.labels, change.put_labels, change.removed_labels),
        limits=limits,
    )


def renewed(key: Key, expires_in_s: int | None, now: datetime) -> Key:
    """The key with another end. Raises BadInput, NotPossible."""
    _demand_alive(key)
    return replace(key, limits=replace(key.limits, expires_at=order_expiry(expires_in_s, now)))


def rotated(key: Key, overlap_s: int, now: datetime) -> Key:
    """The key with another secret; the one before works until `old_secret_until`. Raises BadInput, NotPossible."""
    _demand_alive(key)
    if overlap_s > LONGEST_OVERLAP.total_seconds():
        raise BadInput(f"The old secret works for at most {LONGEST_OVERLAP.days} days more.")
    return replace(key, old_secret_until=now + timedelta(seconds=overlap_s) if overlap_s else None)


def blocked(key: Key, reason: str, for_s: int | None, now: datetime) -> Key:
    """Raises BadInput, NotPossible."""
    _demand_alive(key)
    reason = reason.strip()
    if not reason or len(reason) > _LONGEST_REASON or not reason.isprintable():
        raise BadInput(f"Say why the key is blocked, in at most {_LONGEST_REASON} characters: whoever uses it is told.")
    if for_s is not None and not 0 < for_s <= LONGEST_LIFE.total_seconds():
        raise BadInput(
            "A key is blocked for 1 second to 100 years; leave the time out to block it until it is unblocked."
        )
    return replace(key, block=Block(reason, now + timedelta(seconds=for_s) if for_s is not None else None))


def unblocked(key: Key) -> Key:
    """Raises NotPossible."""
    if key.block is None:
        raise NotPossible(f"The key {key.public_id} is not blocked.")
    return replace(key, block=None)


def demand_audit_unchanged(wanted: AuditPolicy | None, held: AuditPolicy | None) -> None:
    """Raises NotAllowed: what is kept of requests is not for their makers to say."""
    if wanted is not held:
        raise NotAllowed("What is kept of a key's requests only an administrator sets.")


def demand_no_wider(limits: Limits, held: Limits) -> None:
    """Raises NotAllowed when the bearer of a key with the limits `held` would reach further, or longer, by a key of theirs
    with these: a stolen or lent key could make itself a better one."""
    if not _is_within(limits, held):
        raise NotAllowed(
            "The key you use is narrower than that one would be, or ends sooner: use one that may as much."
        )


def _demand_within(limits: Limits, before: Limits) -> None:
    if not _is_within(limits, before):
        raise NotAllowed(
            "You may restrict a key of yours further, and not widen it. Ask for more with `forebay quota request`."
        )


def _is_within(limits: Limits, held: Limits) -> bool:
    try:
        return narrowed(limits, held, band_was_named=True) == limits
    except NotAllowed:
        return False


def _demand_alive(key: Key) -> None:
    if key.state is KeyState.REVOKED:
        raise NotPossible(f"The key {key.public_id} was revoked, for good; make another.")
