"""One's own keys: as they are shown, and what their forms say. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from forebay.wire.v1 import admin_pb2, key_terms_pb2, registry_pb2, types_pb2
from forebay_admin.keys import key_words
from forebay_admin.keys.key_terms import CALLS, MOST_TOKENS
from forebay_admin.web.forms import Form, WrongField

PATH = "/me/keys"
SOON_S = 7 * 86_400.0
"""A key that expires within so long is warned of."""
MOST_DAYS = 36_500
LIVES = (
    ("", "never"),
    ("1", "in a day"),
    ("7", "in a week"),
    ("30", "in 30 days"),
    ("90", "in 90 days"),
    ("365", "in a year"),
)
OVERLAPS = (("0", "at once"), ("3600", "in an hour"), ("86400", "in a day"), ("604800", "in a week"))
BANDS = {"": types_pb2.BAND_UNSPECIFIED, **{name: band for name, band in key_words.BANDS.items() if name != "system"}}
_STATES = {
    admin_pb2.KEY_STATE_ACTIVE: ("works", "good"),
    admin_pb2.KEY_STATE_BLOCKED: ("blocked", "bad"),
    admin_pb2.KEY_STATE_REVOKED: ("revoked", ""),
    admin_pb2.KEY_STATE_USER_DISABLED: ("you are disabled", "bad"),
}
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class OwnKey:
    id: str
    name: str
    path: str
    state: str
    tone: str
    is_usable: bool
    is_revoked: bool
    created_at: float
    expires_at: float | None
    expires_soon: bool
    used_at: float | None
    old_secret_until: float | None
    block_reason: str
    description: str
    allowed_models: tuple[str, ...]
    denied_models: tuple[str, ...]
    pools: tuple[str, ...]
    addresses: tuple[str, ...]
    calls: tuple[str, ...]
    max_output_tokens: int | None
    max_context_tokens: int | None
    band: str


def own_key(key: admin_pb2.Key, now: float) -> OwnKey:
    state, tone = _STATES.get(key.state, ("unknown", "warn"))
    expires_at = key.expires_at_us / 1e6 if key.HasField("expires_at_us") else None
    is_revoked = key.state == admin_pb2.KEY_STATE_REVOKED
    is_over = expires_at is not None and expires_at <= now
    if is_over and not is_revoked:
        state, tone = "expired", "bad"
    terms = key.terms
    return OwnKey(
        key.id,
        key.name or "without a name",
        f"{PATH}/{key.id}",
        state,
        tone,
        state == "works",
        is_revoked,
        key.created_at_us / 1e6,
        expires_at,
        expires_at is not None and not is_revoked and now < expires_at < now + SOON_S,
        key.last_used_at_us / 1e6 if key.HasField("last_used_at_us") else None,
        key.old_secret_until_us / 1e6
        if key.HasField("old_secret_until_us") and key.old_secret_until_us / 1e6 > now
        else None,
        key.block_reason,
        key.description,
        tuple(key.allowed_models),
        tuple(terms.denied_models),
        tuple(pool for pool in (key.pool, *terms.other_pools) if pool),
        tuple(terms.addresses),
        tuple(terms.calls),
        terms.max_output_tokens if terms.HasField("max_output_tokens") else None,
        terms.max_context_tokens if terms.HasField("max_context_tokens") else None,
        next((word for word, band in BANDS.items() if band == key.band_cap), ""),
    )


def own_keys(keys: Sequence[admin_pb2.Key], now: float) -> tuple[OwnKey, ...]:
    """Those that work first, the newest first."""
    found = [own_key(key, now) for key in keys]
    return tuple(sorted(found, key=lambda key: (not key.is_usable, -key.created_at)))


def expiring(keys: Sequence[OwnKey]) -> tuple[OwnKey, ...]:
    return tuple(key for key in keys if key.expires_soon)


def first_model(models: Sequence[registry_pb2.FleetModel], allowed: Collection[str]) -> registry_pb2.FleetModel | None:
    """One to show how a key is used: that is served, that it allows, and that chats if any does."""
    fitting = [model for model in models if model.healthy_backends and (not allowed or model.name in allowed)]
    chatting = [model for model in fitting if not model.capabilities or {"chat", "completion"} & {*model.capabilities}]
    return next(iter((*chatting, *fitting)), None)


# --- what forms say ----------------------------------------------------------------------------------------------------


def creation_of(form: Form, user: str) -> admin_pb2.CreateKeyRequest:
    """Raises WrongField; what the call itself checks it checks."""
    days = form.whole("days", 0, most=MOST_DAYS)
    return admin_pb2.CreateKeyRequest(
        user=user,
        name=form.demand("name", "A name"),
        description=form.get("description"),
        allowed_models=form.many("models"),
        expires_in_s=days * _DAY_S if days else None,
        band_cap=_band(form),
        terms=key_terms_pb2.KeyTerms(
            denied_models=form.many("denied"),
            addresses=form.many("addresses"),
            calls=_calls(form),
            max_output_tokens=_tokens(form, "max_output"),
            max_context_tokens=_tokens(form, "max_context"),
        ),
    )


def change_of(form: Form, key_id: str) -> key_terms_pb2.SetKeyTermsRequest:
    """Everything that the form shows, as it is to be. Raises WrongField."""
    return key_terms_pb2.SetKeyTermsRequest(
        key_id=key_id,
        name=form.demand("name", "A name"),
        description=form.get("description"),
        allowed_models=key_terms_pb2.Words(words=form.many("models")),
        denied_models=key_terms_pb2.Words(words=form.many("denied")),
        addresses=key_terms_pb2.Words(words=form.many("addresses")),
        calls=key_terms_pb2.Words(words=_calls(form)),
        max_output_tokens=key_terms_pb2.Most(tokens=_tokens(form, "max_output")),
        max_context_tokens=key_terms_pb2.Most(tokens=_tokens(form, "max_context")),
    )


def renewal_of(form: Form, key_id: str) -> key_terms_pb2.RenewKeyRequest:
    """Raises WrongField."""
    days = form.whole("days", 0, most=MOST_DAYS)
    return key_terms_pb2.RenewKeyRequest(key_id=key_id, expires_in_s=days * _DAY_S if days else None)


def rotation_of(form: Form, key_id: str) -> key_terms_pb2.RotateKeyRequest:
    """Raises WrongField."""
    overlap = form.get("overlap", "0")
    if overlap not in dict(OVERLAPS):
        raise WrongField("overlap", "Choose when the old secret ends.")
    return key_terms_pb2.RotateKeyRequest(key_id=key_id, overlap_s=int(overlap))


def _tokens(form: Form, name: str) -> int | None:
    return form.whole(name, 0, most=MOST_TOKENS) or None


def _calls(form: Form) -> list[str]:
    calls = form.many("calls")
    if unknown := [call for call in calls if call not in CALLS]:
        raise WrongField("calls", f"There is no {unknown[0][:40]!r} to ask for.")
    return calls


def _band(form: Form) -> types_pb2.Band.ValueType:
    if (word := form.get("band")) not in BANDS:
        raise WrongField("band", "Choose how urgent its requests may be.")
    return BANDS[word]
