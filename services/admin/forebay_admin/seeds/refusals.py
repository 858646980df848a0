"""What went wrong, as the other gateways tell it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from forebay.errors import BadInput, ForebayError, Refusal
from forebay_admin.rest import failures


class Dialect(StrEnum):
    MINDROUTER = "mindrouter"
    OLLAMAFLOW = "ollamaflow"


class NoCounterpart(ForebayError):
    """Forebay has nothing like this."""

    reason = Refusal.BAD_REQUEST


@dataclass(frozen=True, slots=True)
class Misfit:
    place: tuple[str, ...]
    """body or query, then the name."""
    why: str
    is_missing: bool = False


class BadFields(BadInput):
    """Some of this request does not fit."""

    def __init__(self, misfits: Sequence[Misfit]) -> None:
        self.misfits = tuple(misfits)
        super().__init__("; ".join(f"{'.'.join(one.place)}: {one.why}" for one in self.misfits))


_WORDS = {
    400: "BadRequest",
    401: "AuthenticationFailed",
    403: "AuthorizationFailed",
    404: "NotFound",
    405: "BadRequest",
    409: "Conflict",
    413: "TooLarge",
    415: "BadRequest",
    422: "BadRequest",
    501: "NotImplemented",
    503: "ServiceUnavailable",
}


def status_of(error: ForebayError, dialect: Dialect) -> int:
    if isinstance(error, NoCounterpart):
        return 501
    if isinstance(error, BadFields):
        return 422 if dialect is Dialect.MINDROUTER else 400
    return failures.status_of(error)


def told(error: ForebayError, dialect: Dialect) -> dict[str, Any]:
    if dialect is Dialect.OLLAMAFLOW:
        status = status_of(error, dialect)
        return {
            "Error": _WORDS.get(status, "InternalError"),
            "Message": error.message,
            "StatusCode": status,
            "Context": None,
            "Description": error.message,
        }
    if isinstance(error, BadFields):
        return {"detail": [_as_detail(misfit) for misfit in error.misfits]}
    return {"detail": error.message}


def headers_of(error: ForebayError) -> dict[str, str]:
    return failures.headers_of(error)


def _as_detail(misfit: Misfit) -> dict[str, Any]:
    return {"type": "missing" if misfit.is_missing else "value_error", "loc": list(misfit.place), "msg": misfit.why}
