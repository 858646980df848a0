"""Requests to be let in: what somebody who is no user says of themselves, and what becomes of it. Pure; keeping them is
access_request_store's job, doing what was asked for access_requests_desk's."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from forebay.errors import BadInput, NotPossible

MOST_OPEN = 200
"""Of everybody together: whoever decides reads each of them."""
MOST_OPEN_OF_ADDRESS = 5
KEPT = timedelta(days=90)
"""After it was decided."""

LONGEST_NAME, LONGEST_MAIL, LONGEST_REASON = 100, 64, 1000
_MAIL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
"""Such that a user can be called so."""


class WrongAnswer(BadInput):
    """One of the questions was not answered as it can be."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(why)
        self.field = field


class AccessState(StrEnum):
    OPEN = "open"
    APPROVED = "approved"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class AccessRequest:
    id: str
    name: str
    mail: str
    reason: str
    address: str
    created_at: datetime
    state: AccessState = AccessState.OPEN
    decided_at: datetime | None = None
    decided_by: str = ""
    answer: str = ""
    user_name: str = ""
    """Of the user that was made."""


def order_access(*, name: str, mail: str, reason: str, address: str, now: datetime) -> AccessRequest:
    """Raises WrongAnswer."""
    name, mail, reason = name.strip(), mail.strip(), reason.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise WrongAnswer("name", f"Give your name, in at most {LONGEST_NAME} characters.")
    if len(mail) > LONGEST_MAIL or not _MAIL.fullmatch(mail):
        raise WrongAnswer(
            "mail", f"Give a mail address, such as ada@example.org, of at most {LONGEST_MAIL} characters."
        )
    if not reason or len(reason) > LONGEST_REASON or not reason.replace("\n", "").isprintable():
        raise WrongAnswer("reason", f"Say what you need it for, in at most {LONGEST_REASON} characters.")
    return AccessRequest(f"access_{secrets.token_hex(6)}", name, mail, reason, address, now)


def demand_room(open_in_all: int, open_of_address: int) -> None:
    """Raises NotPossible when those who decide have enough to read."""
    if open_of_address >= MOST_OPEN_OF_ADDRESS:
        raise NotPossible("From your network several people have asked already: wait until they were answered.")
    if open_in_all >= MOST_OPEN:
        raise NotPossible("Too many people have asked already: wait, or write to whoever runs this.")


def decided(
    request: AccessRequest, *, approve: bool, answer: str, user_name: str, by: str, now: datetime
) -> AccessRequest:
    """Raises BadInput, NotPossible when it is decided already."""
    if request.state is not AccessState.OPEN:
        raise NotPossible(f"The request {request.id} was {request.state} by {request.decided_by} already.")
    answer = answer.strip()
    if len(answer) > LONGEST_REASON or not answer.replace("\n", "").isprintable():
        raise BadInput(f"Give an answer of at most {LONGEST_REASON} characters, all of them printable.")
    state = AccessState.APPROVED if approve else AccessState.DENIED
    return replace(request, state=state, decided_at=now, decided_by=by, answer=answer, user_name=user_name)
