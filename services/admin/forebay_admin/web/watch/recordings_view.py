"""What requests and answers said, as those see it who may. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forebay.wire.v1 import key_terms_pb2, recordings_pb2
from forebay_admin.json_form import word
from forebay_admin.web.forms import Form, WrongField
from forebay_admin.web.paging import address, step
from forebay_admin.web.watch.spans import from_us, unix

PATH = "/console/recordings"
AT_ONCE = 50
POLICIES = {
    "off": key_terms_pb2.AUDIT_POLICY_OFF,
    "metadata": key_terms_pb2.AUDIT_POLICY_METADATA,
    "sampled": key_terms_pb2.AUDIT_POLICY_SAMPLED,
    "full": key_terms_pb2.AUDIT_POLICY_FULL,
}
NONE_OF_ITS_OWN = "none"
_TONES = {"finished": "good", "failed": "bad", "refused": "warn", "cancelled": ""}


@dataclass(frozen=True, slots=True)
class RecordingRow:
    id: str
    path: str
    request_id: str
    explained_path: str
    at: float | None
    user: str
    user_path: str
    key_id: str
    key_path: str
    group: str
    model: str
    route: str
    outcome: str
    tone: str
    reason: str
    status: int
    duration_ms: int
    request_bytes: int
    answer_bytes: int
    is_cut: bool
    redacted: int
    policy: str
    address: str
    gateway: str


@dataclass(frozen=True, slots=True)
class RecordingsView:
    rows: Sequence[RecordingRow]
    next_href: str
    first_href: str


@dataclass(frozen=True, slots=True)
class PolicyRow:
    group: str
    """Empty: everybody."""
    policy: str
    permille: int


def asked_for(query: Form) -> recordings_pb2.SearchRecordingsRequest:
    """Raises WrongField."""
    return recordings_pb2.SearchRecordingsRequest(
        text=query.get("text"),
        from_us=from_us(query, "from"),
        to_us=from_us(query, "to"),
        user=query.get("user"),
        key_id=query.get("key"),
        model=query.get("model"),
        limit=AT_ONCE,
        page=query.get("page"),
    )


def recordings_view(told: recordings_pb2.SearchRecordingsResponse, query: Mapping[str, str]) -> RecordingsView:
    return RecordingsView(
        tuple(recording_row(one) for one in told.recordings),
        address(PATH, query, page=told.next_page) if told.next_page else "",
        address(PATH, query, page="") if query.get("page") else "",
    )


def recording_row(one: recordings_pb2.RecordedRequest) -> RecordingRow:
    model = one.model or one.model_requested
    return RecordingRow(
        one.id,
        f"{PATH}/{step(one.id)}",
        one.request_id,
        f"/console/explain/{step(one.id)}",
        unix(one.started_at_us),
        one.user_name,
        f"/console/users/{step(one.user_name)}",
        one.key_id,
        f"/console/keys/{step(one.key_id)}",
        one.group_name,
        model if model == one.model_requested else f"{model} (asked for {one.model_requested})",
        one.route,
        one.outcome,
        _TONES.get(one.outcome, ""),
        one.reason,
        one.http_status,
        one.duration_ms,
        one.request_bytes,
        one.answer_bytes,
        one.request_cut or one.answer_cut,
        one.redacted,
        word(one, "policy") or "",
        one.address,
        one.gateway,
    )


def policy_rows(told: recordings_pb2.ListRecordingPoliciesResponse) -> Sequence[PolicyRow]:
    return tuple(PolicyRow(one.group, word(one, "policy") or "", one.permille) for one in told.policies)


def policy_of(form: Form) -> recordings_pb2.RecordingPolicy:
    """Raises WrongField."""
    name = form.demand("policy", "What is kept")
    if name not in (*POLICIES, NONE_OF_ITS_OWN):
        raise WrongField("policy", f"What is kept is one of {', '.join(POLICIES)}, or {NONE_OF_ITS_OWN}.")
    permille = form.whole("permille", 0, most=1000)
    if name == "sampled" and not permille:
        raise WrongField("permille", "Say of how many in a thousand requests samples are kept.")
    return recordings_pb2.RecordingPolicy(
        group=form.get("group"),
        policy=POLICIES.get(name, key_terms_pb2.AUDIT_POLICY_UNSPECIFIED),
        permille=permille,
    )
