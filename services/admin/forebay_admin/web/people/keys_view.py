"""Keys as the console shows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forebay.wire.v1 import admin_pb2, key_terms_pb2, types_pb2
from forebay_admin.keys.key_words import AUDITS, BANDS
from forebay_admin.row_files import Column, Kind, Row
from forebay_admin.web.forms import Form, WrongField
from forebay_admin.web.paging import address, step
from forebay_admin.web.people.amounts import unix, weight

PATH = "/console/keys"
AT_ONCE = 50
SOON_S = 7 * 86_400
COLUMNS = (
    Column("id", Kind.TEXT),
    Column("name", Kind.TEXT),
    Column("user", Kind.TEXT),
    Column("state", Kind.TEXT),
    Column("pool", Kind.TEXT),
    Column("band", Kind.TEXT),
    Column("allowed_models", Kind.TEXT),
    Column("description", Kind.TEXT),
    Column("labels", Kind.TEXT),
    Column("created_at", Kind.MOMENT),
    Column("expires_at", Kind.MOMENT),
    Column("last_used_at", Kind.MOMENT),
    Column("revoked_at", Kind.MOMENT),
)
STATES = {
    "active": admin_pb2.KEY_STATE_ACTIVE,
    "blocked": admin_pb2.KEY_STATE_BLOCKED,
    "user_disabled": admin_pb2.KEY_STATE_USER_DISABLED,
    "revoked": admin_pb2.KEY_STATE_REVOKED,
}
AUDIT_WORDS = {number: name for name, number in AUDITS.items()}
_STATE_WORDS = {number: name for name, number in STATES.items()}
_BAND_WORDS = {number: name for name, number in BANDS.items()}
_TONES = {"active": "good", "expires soon": "warn", "blocked": "bad", "expired": "bad"}


@dataclass(frozen=True, slots=True)
class KeyRow:
    id: str
    name: str
    path: str
    user: str
    user_path: str
    state: str
    tone: str
    created_at: float | None
    expires_at: float | None
    used_at: float | None


@dataclass(frozen=True, slots=True)
class KeysView:
    rows: Sequence[KeyRow]
    next_href: str
    first_href: str


@dataclass(frozen=True, slots=True)
class KeyView:
    row: KeyRow
    description: str
    labels: Sequence[str]
    """Each NAME=VALUE."""
    band: str
    pools: Sequence[str]
    """Its own first."""
    weight: str
    allowed_models: Sequence[str]
    denied_models: Sequence[str]
    addresses: Sequence[str]
    calls: Sequence[str]
    max_output_tokens: int | None
    max_context_tokens: int | None
    audit: str
    """Empty: the key says nothing about it."""
    is_blocked: bool
    is_revoked: bool
    block_reason: str
    blocked_until: float | None
    old_secret_until: float | None
    revoked_at: float | None
    usage_path: str
    audit_path: str
    limits_path: str


def asked_for(query: Form) -> admin_pb2.ListKeysRequest:
    """A page of the list, as its address says. Raises WrongField."""
    state = query.get("state")
    if state and state not in STATES:
        raise WrongField("state", f"Keys are {', '.join(STATES)}.")
    return admin_pb2.ListKeysRequest(
        user=query.get("user"),
        group=query.get("group"),
        text=query.get("text"),
        state=STATES.get(state, admin_pb2.KEY_STATE_UNSPECIFIED),
        labels=query.many("label"),
        include_revoked=query.is_ticked("revoked"),
        limit=AT_ONCE,
        after=query.get("after"),
    )


def keys_view(told: admin_pb2.ListKeysResponse, query: Mapping[str, str], now: float) -> KeysView:
    return KeysView(
        key_rows(told.keys, now),
        address(PATH, query, after=told.keys[-1].id) if told.has_more else "",
        address(PATH, query, after="") if query.get("after") else "",
    )


def key_rows(keys: Sequence[admin_pb2.Key], now: float) -> Sequence[KeyRow]:
    return tuple(_row(key, now) for key in keys)


def key_view(key: admin_pb2.Key, now: float) -> KeyView:
    terms = key.terms
    return KeyView(
        row=_row(key, now),
        description=key.description,
        labels=_labels(key),
        band=_BAND_WORDS.get(key.band_cap, ""),
        pools=tuple(filter(None, (key.pool, *terms.other_pools))),
        weight=weight(key.weight_milli),
        allowed_models=tuple(key.allowed_models),
        denied_models=tuple(terms.denied_models),
        addresses=tuple(terms.addresses),
        calls=tuple(terms.calls),
        max_output_tokens=terms.max_output_tokens if terms.HasField("max_output_tokens") else None,
        max_context_tokens=terms.max_context_tokens if terms.HasField("max_context_tokens") else None,
        audit=AUDIT_WORDS.get(terms.audit, ""),
        is_blocked=key.state == admin_pb2.KEY_STATE_BLOCKED,
        is_revoked=key.state == admin_pb2.KEY_STATE_REVOKED,
        block_reason=key.block_reason,
        blocked_until=unix(key.blocked_until_us),
        old_secret_until=unix(key.old_secret_until_us),
        revoked_at=unix(key.revoked_at_us),
        usage_path=address("/console/usage", {}, key=key.id),
        audit_path=address("/console/audit", {}, subject=key.id),
        limits_path=f"/console/limits/key/{key.id}",
    )


def key_rows_of_file(keys: Sequence[admin_pb2.Key]) -> Sequence[Row]:
    return tuple(
        {
            "id": key.id,
            "name": key.name,
            "user": key.user_name,
            "state": _STATE_WORDS.get(key.state, ""),
            "pool": key.pool,
            "band": _BAND_WORDS.get(key.band_cap, ""),
            "allowed_models": ";".join(key.allowed_models),
            "description": key.description,
            "labels": ";".join(_labels(key)),
            "created_at_us": key.created_at_us,
            "expires_at_us": key.expires_at_us or None,
            "last_used_at_us": key.last_used_at_us or None,
            "revoked_at_us": key.revoked_at_us or None,
        }
        for key in keys
    )


def terms_of(form: Form) -> key_terms_pb2.KeyTerms:
    """Of a new key. Raises WrongField."""
    return key_terms_pb2.KeyTerms(
        denied_models=form.many("denied_models"),
        other_pools=form.many("pools")[1:],
        addresses=form.many("addresses"),
        calls=form.many("calls"),
        max_output_tokens=_tokens(form, "max_output_tokens"),
        max_context_tokens=_tokens(form, "max_context_tokens"),
        audit=_audit(form),
    )


def terms_change_of(key_id: str, before: KeyView, form: Form) -> key_terms_pb2.SetKeyTermsRequest:
    """All terms as the form has them; `before`: as they stood there. Raises WrongField."""
    labels = labels_of(form)
    most = {
        name: key_terms_pb2.Most(tokens=_tokens(form, name)) for name in ("max_output_tokens", "max_context_tokens")
    }
    audit = _audit(form)
    if before.audit and not audit:
        raise WrongField("audit", "What is kept of a key's requests can be changed, and not left open again.")
    return key_terms_pb2.SetKeyTermsRequest(
        key_id=key_id,
        name=form.demand("name", "The name"),
        description=form.get("description"),
        labels=labels,
        removed_labels=[name for name in (one.partition("=")[0] for one in before.labels) if name not in labels],
        allowed_models=key_terms_pb2.Words(words=form.many("allowed_models")),
        denied_models=key_terms_pb2.Words(words=form.many("denied_models")),
        pools=key_terms_pb2.Words(words=form.many("pools")),
        addresses=key_terms_pb2.Words(words=form.many("addresses")),
        calls=key_terms_pb2.Words(words=form.many("calls")),
        audit=audit or None,
        band_cap=band_of(form) or None,
        **most,
    )


def labels_of(form: Form) -> Mapping[str, str]:
    """Raises WrongField."""
    found = {}
    for label in form.many("labels"):
        name, equals, value = label.partition("=")
        if not equals:
            raise WrongField("labels", f"{label[:60]!r} is no label: write NAME=VALUE.")
        found[name] = value
    return found


def band_of(form: Form) -> types_pb2.Band.ValueType:
    """Unspecified where nothing is said. Raises WrongField."""
    text = form.get("band")
    if text and text not in BANDS:
        raise WrongField("band", f"There is no band {text[:40]!r}; there are {', '.join(BANDS)}.")
    return BANDS.get(text, types_pb2.BAND_UNSPECIFIED)


def _audit(form: Form) -> key_terms_pb2.AuditPolicy.ValueType:
    text = form.get("audit")
    if text and text not in AUDITS:
        raise WrongField("audit", f"Of a key's requests {', '.join(AUDITS)} can be kept.")
    return AUDITS.get(text, key_terms_pb2.AUDIT_POLICY_UNSPECIFIED)


def _tokens(form: Form, name: str) -> int | None:
    return form.whole(name, least=1, most=10**9) if form.get(name) else None


def _labels(key: admin_pb2.Key) -> Sequence[str]:
    return tuple(f"{name}={value}" for name, value in sorted(key.labels.items()))


def _row(key: admin_pb2.Key, now: float) -> KeyRow:
    expires_at = unix(key.expires_at_us)
    state = _STATE_WORDS.get(key.state, "unknown").replace("_", " ")
    if state == "active" and expires_at is not None and expires_at <= now + SOON_S:
        state = "expired" if expires_at <= now else "expires soon"
    return KeyRow(
        key.id,
        key.name,
        f"{PATH}/{step(key.id)}",
        key.user_name,
        f"/console/users/{step(key.user_name)}",
        state,
        _TONES.get(state, ""),
        unix(key.created_at_us),
        expires_at,
        unix(key.last_used_at_us),
    )
