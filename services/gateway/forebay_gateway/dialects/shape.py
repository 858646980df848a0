"""What a refusal comes to in HTTP, from one table: status, headers, and the words that OpenAI's clients switch on.

SDKs of every dialect retry by status and headers; how the body looks is each dialect's own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from forebay.errors import ForebayError, Refusal
from forebay_gateway.refused import (
    BadField,
    BodyStalled,
    ContextTooLong,
    EngineRefused,
    NoKey,
    NotServedHere,
    UnknownPath,
    WrongMethod,
    word_of,
)

LONGEST_RETRY_S = 120.0
"""The openai SDK ignores a longer `retry-after`."""


@dataclass(frozen=True, slots=True)
class Shape:
    status: int
    type: str
    code: str | None
    retry_after_s: float | None = None
    """When nobody computed one."""
    should_retry: bool | None = None
    """None: the SDK decides by status."""
    param: str | None = None


_REQUEST = "invalid_request_error"
_SERVER = "server_error"

SHAPES: dict[Refusal, Shape] = {
    Refusal.INVALID_KEY: Shape(401, _REQUEST, "invalid_api_key"),
    Refusal.KEY_REVOKED: Shape(401, _REQUEST, "invalid_api_key"),
    Refusal.KEY_EXPIRED: Shape(401, _REQUEST, "invalid_api_key"),
    Refusal.KEY_BLOCKED: Shape(403, _REQUEST, "key_blocked"),
    Refusal.ADDRESS_DENIED: Shape(403, _REQUEST, "address_denied"),
    Refusal.ADDRESS_BANNED: Shape(429, "rate_limit_error", "address_banned", retry_after_s=60.0),
    Refusal.NOT_ALLOWED: Shape(403, _REQUEST, "not_allowed"),
    Refusal.NOT_FOUND: Shape(404, _REQUEST, "not_found"),
    Refusal.BAD_REQUEST: Shape(400, _REQUEST, None),
    Refusal.BODY_TOO_LARGE: Shape(413, _REQUEST, "request_too_large"),
    Refusal.CONTEXT_TOO_LONG: Shape(400, _REQUEST, "context_length_exceeded"),
    Refusal.WIDTH_TOO_LARGE: Shape(400, _REQUEST, "invalid_value", param="n"),
    Refusal.MODEL_UNKNOWN: Shape(404, _REQUEST, "model_not_found", param="model"),
    Refusal.NO_BACKEND: Shape(503, _SERVER, "no_backend", retry_after_s=2.0),
    Refusal.QUEUE_FULL: Shape(503, _SERVER, "queue_full", retry_after_s=2.0),
    Refusal.QUEUE_TIMEOUT: Shape(503, _SERVER, "queue_timeout", retry_after_s=2.0),
    Refusal.QUOTA_SPENT: Shape(429, "insufficient_quota", "insufficient_quota", should_retry=False),
    Refusal.RATE_LIMITED: Shape(429, "rate_limit_error", "rate_limit_exceeded", retry_after_s=1.0),
    Refusal.CONCURRENCY_LIMITED: Shape(429, "rate_limit_error", "concurrency_limit_exceeded", retry_after_s=1.0),
    Refusal.ENGINE_FAILED: Shape(502, _SERVER, "engine_failed", retry_after_s=1.0),
    Refusal.ENGINE_REFUSED: Shape(400, _REQUEST, None),
    # Asking again is the operator's to decide: three tries of a library on top of three of ours would be nine.
    Refusal.OUTPUT_INVALID: Shape(502, _SERVER, "output_invalid", should_retry=False),
    Refusal.JOURNAL_FULL: Shape(503, _SERVER, "journal_full", retry_after_s=5.0),
    Refusal.NO_SCHEDULER: Shape(503, _SERVER, "no_scheduler", retry_after_s=1.0),
    Refusal.STATE_UNAVAILABLE: Shape(503, _SERVER, "state_unavailable", retry_after_s=2.0),
    Refusal.STARTING: Shape(503, _SERVER, "starting", retry_after_s=1.0),
    Refusal.DRAINING: Shape(503, _SERVER, "draining", retry_after_s=1.0),
    Refusal.INTERNAL: Shape(500, _SERVER, "internal_error"),
}


def shape_of(error: ForebayError) -> Shape:
    """A few errors say more than their word."""
    usual = SHAPES[word_of(error)]
    match error:
        case EngineRefused():
            return Shape(error.status, error.type, error.code, param=error.param)
        case BadField():
            return Shape(usual.status, usual.type, error.code or usual.code, param=error.param or usual.param)
        case ContextTooLong():
            return replace(usual, param=error.param)
        case BodyStalled():
            return Shape(408, _REQUEST, "request_timeout")
        case WrongMethod():
            return Shape(405, _REQUEST, "method_not_supported")
        case NotServedHere():
            return Shape(501, _REQUEST, "not_implemented", should_retry=False)
        case UnknownPath():
            return Shape(404, _REQUEST, "unknown_url")
        case NoKey():
            return Shape(401, _REQUEST, "invalid_api_key")
        case _:
            return usual


def headers_of(error: ForebayError, shape: Shape) -> dict[str, str]:
    """`shape`: as it is in the dialect."""
    headers = {"content-type": "application/json", "x-forebay-reason": str(word_of(error))}
    retry_after_s = error.retry_after_s if error.retry_after_s is not None else shape.retry_after_s
    if retry_after_s is not None and shape.status in (429, 502, 503, 529) and shape.should_retry is not False:
        after = min(LONGEST_RETRY_S, max(0.0, retry_after_s))
        headers["retry-after"] = str(max(1, math.ceil(after)))
        headers["retry-after-ms"] = str(max(1, round(after * 1000)))
    if shape.should_retry is not None:
        headers["x-should-retry"] = "true" if shape.should_retry else "false"
    if isinstance(error, WrongMethod):
        headers["allow"] = error.allowed
    if shape.status == 401:
        headers["www-authenticate"] = "Bearer"
    return headers
