"""The one error family. Each service raises these; two edges render them: `forebay.rpc` as gRPC status, the gateway in
the caller's dialect. A class's docstring is its default message, so it is written for the person who will read it."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Refusal(StrEnum):
    """Why a request was not served. One word each, the same in `x-forebay-reason`, metric label, ledger row and test."""

    INVALID_KEY = "invalid_key"
    KEY_REVOKED = "key_revoked"
    KEY_EXPIRED = "key_expired"
    KEY_BLOCKED = "key_blocked"
    ADDRESS_DENIED = "address_denied"
    ADDRESS_BANNED = "address_banned"
    NOT_ALLOWED = "not_allowed"
    NOT_FOUND = "not_found"
    BAD_REQUEST = "bad_request"
    BODY_TOO_LARGE = "body_too_large"
    CONTEXT_TOO_LONG = "context_too_long"
    WIDTH_TOO_LARGE = "width_too_large"
    MODEL_UNKNOWN = "model_unknown"
    NO_BACKEND = "no_backend"
    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    QUOTA_SPENT = "quota_spent"
    RATE_LIMITED = "rate_limited"
    CONCURRENCY_LIMITED = "concurrency_limited"
    ENGINE_FAILED = "engine_failed"
    ENGINE_REFUSED = "engine_refused"
    OUTPUT_INVALID = "output_invalid"
    JOURNAL_FULL = "journal_full"
    NO_SCHEDULER = "no_scheduler"
    STATE_UNAVAILABLE = "state_unavailable"
    STARTING = "starting"
    DRAINING = "draining"
    INTERNAL = "internal"


class ForebayError(Exception):
    """Something went wrong in Forebay."""

    reason: ClassVar[Refusal] = Refusal.INTERNAL

    def __init__(self, message: str | None = None, *, retry_after_s: float | None = None) -> None:
        super().__init__(message or " ".join((type(self).__doc__ or "").split()))
        self.retry_after_s = retry_after_s
        """Seconds after which trying again makes sense; None when it never does or nobody knows."""

    @property
    def message(self) -> str:
        return str(self)


class BadInput(ForebayError):
    """The request cannot be understood."""

    reason = Refusal.BAD_REQUEST


class NotFound(ForebayError):
    """There is no such thing."""

    reason = Refusal.NOT_FOUND


class AlreadyExists(ForebayError):
    """That name is taken."""

    reason = Refusal.BAD_REQUEST


class NotPossible(ForebayError):
    """What there is now does not allow this."""

    reason = Refusal.BAD_REQUEST


class NotAuthenticated(ForebayError):
    """No valid credential came with this call."""

    reason = Refusal.INVALID_KEY


class NotAllowed(ForebayError):
    """This credential does not allow that."""

    reason = Refusal.NOT_ALLOWED


class Unavailable(ForebayError):
    """A part of Forebay that this needs is away; it usually returns within seconds."""

    reason = Refusal.STARTING


class BadSettings(ForebayError):
    """The configuration has problems; nothing was started."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__(
            "\n".join(["The configuration has problems; nothing was started:", *(f"  - {p}" for p in problems)])
        )


class CannotStart(ForebayError):
    """A part could not start. The message says what to do about it."""
