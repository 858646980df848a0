"""What went wrong, as the REST API tells it: a status and `{"error": {"code", "message", "reason"}}`. Pure."""

from __future__ import annotations

from typing import Any

from forebay import errors
from forebay.errors import BadInput, ForebayError, NotPossible
from forebay_admin.rest.asked import BadFields


class BodyTooLarge(BadInput):
    """The body is larger than this address takes."""

    reason = errors.Refusal.BODY_TOO_LARGE


class NotJson(BadInput):
    """A body here is JSON: say so with `content-type: application/json`."""


class NotRepeated(BadInput):
    """This Idempotency-Key came with another request before."""


class StillUnderWay(NotPossible):
    """The request with this Idempotency-Key is still under way."""


class TookTooLong(errors.Unavailable):
    """It took too long; whether it was done is not known."""


class NoAddress(errors.NotFound):
    """There is no such address; the addresses stand in /docs."""


class WrongVerb(BadInput):
    """This address does not take this method."""


class Refused(ForebayError):
    """What was asked was understood, and cannot be done as it is."""

    reason = errors.Refusal.BAD_REQUEST

    def __init__(self, problems: list[dict[str, Any]]) -> None:
        self.problems = problems
        super().__init__(f"Nothing was changed: {problems[0].get('path')}: {problems[0].get('why')}")


STATUS: tuple[tuple[type[ForebayError], int, str], ...] = (
    (BodyTooLarge, 413, "body_too_large"),
    (NotJson, 415, "not_json"),
    (NotRepeated, 422, "idempotency_key_reused"),
    (Refused, 422, "refused"),
    (WrongVerb, 405, "wrong_method"),
    (errors.BadInput, 400, "bad_input"),
    (errors.NotAuthenticated, 401, "not_authenticated"),
    (errors.NotAllowed, 403, "not_allowed"),
    (errors.NotFound, 404, "not_found"),
    (errors.AlreadyExists, 409, "already_exists"),
    (StillUnderWay, 409, "still_under_way"),
    (errors.NotPossible, 409, "not_possible"),
    (errors.Unavailable, 503, "unavailable"),
    (ForebayError, 500, "internal"),
)
"""Kind, status and code; the first that fits."""


def status_of(error: ForebayError) -> int:
    return next(status for kind, status, _ in STATUS if isinstance(error, kind))


def told(error: ForebayError) -> dict[str, Any]:
    code = next(code for kind, _, code in STATUS if isinstance(error, kind))
    answer: dict[str, Any] = {"code": code, "message": error.message, "reason": str(error.reason)}
    if isinstance(error, BadFields):
        answer["problems"] = [{"path": problem.path, "why": problem.why} for problem in error.problems]
    elif isinstance(error, Refused):
        answer["problems"] = error.problems
    return {"error": answer}


def headers_of(error: ForebayError) -> dict[str, str]:
    match status_of(error):
        case 401:
            return {"www-authenticate": 'Bearer realm="forebay"'}
        case 503:
            return {"retry-after": str(max(1, round(error.retry_after_s or 2.0)))}
    return {}
