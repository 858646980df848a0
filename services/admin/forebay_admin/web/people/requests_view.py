"""What people ask for, as whoever decides sees it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forebay.wire.v1 import access_requests_pb2, admin_pb2, key_terms_pb2
from forebay_admin.json_form import word
from forebay_admin.web.paging import step
from forebay_admin.web.people.amounts import CAP_WORDS, caps_told, unix
from forebay_admin.web.people.budgets_view import PATH as BUDGETS
from forebay_admin.web.people.limits_view import BudgetRow, amount, budget_row

PATH = "/console/requests"
_TONES = {"open": "warn", "approved": "good", "denied": "bad"}
_LISTS = {
    "allowed_models": "models",
    "denied_models": "models that it may not use",
    "pools": "pools",
    "addresses": "addresses",
    "calls": "calls",
}
_TOKENS = {"max_output_tokens": "tokens of an answer", "max_context_tokens": "tokens of a prompt"}


@dataclass(frozen=True, slots=True)
class QuotaRequestRow:
    id: str
    path: str
    user: str
    user_path: str
    wish: Sequence[str]
    about_path: str
    """What is to be changed; empty where there is no page of it."""
    reason: str
    state: str
    tone: str
    asked_at: float | None
    decided_at: float | None
    decided_by: str
    answer: str

    @property
    def is_open(self) -> bool:
        return self.state == "open"


@dataclass(frozen=True, slots=True)
class AccessRequestRow:
    id: str
    path: str
    name: str
    mail: str
    reason: str
    state: str
    tone: str
    address: str
    asked_at: float | None
    decided_at: float | None
    decided_by: str
    answer: str
    user: str
    user_path: str

    @property
    def is_open(self) -> bool:
        return self.state == "open"


def quota_request_row(request: key_terms_pb2.QuotaRequest, budgets: Mapping[str, BudgetRow]) -> QuotaRequestRow:
    state = word(request, "state") or "unknown"
    return QuotaRequestRow(
        request.id,
        f"{PATH}/quota/{step(request.id)}",
        request.user_name,
        f"/console/users/{step(request.user_name)}",
        wish_words(request.wish, budgets),
        _about(request),
        request.reason,
        state,
        _TONES.get(state, ""),
        unix(request.created_at_us),
        unix(request.decided_at_us),
        request.decided_by,
        request.answer,
    )


def access_request_row(request: access_requests_pb2.AccessRequest) -> AccessRequestRow:
    state = word(request, "state") or "unknown"
    return AccessRequestRow(
        request.id,
        f"{PATH}/access/{step(request.id)}",
        request.name,
        request.mail,
        request.reason,
        state,
        _TONES.get(state, ""),
        request.address,
        unix(request.created_at_us),
        unix(request.decided_at_us),
        request.decided_by,
        request.answer,
        request.user_name,
        f"/console/users/{step(request.user_name)}" if request.user_name else "",
    )


def budgets_by_id(quotas: Sequence[admin_pb2.Quota]) -> Mapping[str, BudgetRow]:
    return {budget.id: budget_row(budget) for quota in quotas for budget in quota.budgets}


def wish_words(wish: key_terms_pb2.QuotaWish, budgets: Mapping[str, BudgetRow]) -> Sequence[str]:
    """What is asked for, in a line each. `budgets`: those that there are, by id."""
    match wish.WhichOneof("of"):
        case "limits":
            of = f" of the key {wish.limits.key_id}" if wish.limits.key_id else ""
            return [f"{CAP_WORDS[name]}{of}: {most:,}" for name, most in caps_told(wish.limits).items()]
        case "budget":
            return [_budget(wish.budget, budgets.get(wish.budget.id))]
        case "key_terms":
            return [f"The key {wish.key_terms.key_id}", *_terms(wish.key_terms)]
        case _:
            return ["Something that this version does not know"]


def _budget(wish: key_terms_pb2.BudgetWish, now: BudgetRow | None) -> str:
    if now is None:
        return f"The budget {wish.id}, which there is not any more"
    return f"The budget of {now.size}: {amount(wish.amount, now.is_money)} instead"


def _terms(terms: key_terms_pb2.SetKeyTermsRequest) -> Sequence[str]:
    lists = [
        f"{what.capitalize()}: {', '.join(getattr(terms, name).words) or 'any'}"
        for name, what in _LISTS.items()
        if terms.HasField(name)  # type: ignore[arg-type]
    ]
    numbers = [
        f"{what.capitalize()}: {_most(getattr(terms, name))}"
        for name, what in _TOKENS.items()
        if terms.HasField(name)  # type: ignore[arg-type]
    ]
    band = [f"Band: {word(terms, 'band_cap')}"] if terms.HasField("band_cap") else []
    return [*lists, *numbers, *band]


def _most(most: key_terms_pb2.Most) -> str:
    return f"{most.tokens:,}" if most.HasField("tokens") else "any"


def _about(request: key_terms_pb2.QuotaRequest) -> str:
    wish = request.wish
    match wish.WhichOneof("of"):
        case "limits" if wish.limits.key_id:
            return f"/console/keys/{step(wish.limits.key_id)}"
        case "limits":
            return f"/console/limits/user/{step(request.user_name)}"
        case "budget":
            return f"{BUDGETS}/{step(wish.budget.id)}"
        case "key_terms":
            return f"/console/keys/{step(wish.key_terms.key_id)}"
        case _:
            return ""
