"""Requests for more: what somebody asks for, and what becomes of it. Pure; keeping them is request_store's job, doing what
was asked for requests_desk's."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from forebay.errors import BadInput, NotPossible

MOST_OPEN = 20
"""Of one user."""
_LONGEST_WORDS = 1000


class RequestState(StrEnum):
    OPEN = "open"
    APPROVED = "approved"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class QuotaRequest:
    id: str
    user_id: str
    user_name: str
    wish: Mapping[str, Any]
    """As JSON has its message: what is asked for is parsed again when it is done."""
    reason: str
    created_at: datetime
    state: RequestState = RequestState.OPEN
    decided_at: datetime | None = None
    decided_by: str = ""
    answer: str = ""


def order_request(
    *, user_id: str, user_name: str, wish: Mapping[str, Any], reason: str, open_already: int, now: datetime
) -> QuotaRequest:
    """Raises BadInput, NotPossible."""
    reason = _words(reason, "a reason")
    if not reason:
        raise BadInput("Say why: whoever decides reads it.")
    if open_already >= MOST_OPEN:
        raise NotPossible(f"{open_already} requests of yours are open, which is the most: wait until one is decided.")
    return QuotaRequest(f"request_{secrets.token_hex(6)}", user_id, user_name, wish, reason, now)


def decided(request: QuotaRequest, *, approve: bool, answer: str, by: str, now: datetime) -> QuotaRequest:
    """Raises BadInput, NotPossible when it is decided already."""
    if request.state is not RequestState.OPEN:
        raise NotPossible(f"The request {request.id} was {request.state} by {request.decided_by} already.")
    answer = _words(answer, "an answer")
    if not approve and not answer:
        raise BadInput("Say why it is denied: whoever asked reads it.")
    state = RequestState.APPROVED if approve else RequestState.DENIED
    return replace(request, state=state, decided_at=now, decided_by=by, answer=answer)


def _words(text: str, what: str) -> str:
    text = text.strip()
    if len(text) > _LONGEST_WORDS or not text.replace("\n", "").isprintable():
        raise BadInput(f"Give {what} of at most {_LONGEST_WORDS} characters, all of them printable.")
    return text
