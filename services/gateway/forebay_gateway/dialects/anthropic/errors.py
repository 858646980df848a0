"""How a refusal looks to an Anthropic client. SDKs switch on `type` and on the status."""

from __future__ import annotations

from dataclasses import replace

import orjson

from forebay.errors import ForebayError, Refusal
from forebay_gateway.canonical.dialect import Dialect, Rendered
from forebay_gateway.dialects.shape import headers_of, shape_of
from forebay_gateway.rate_standing import anthropic_rate_headers
from forebay_gateway.refused import word_of

_OVERLOADED = 529
_CROWDED = (Refusal.QUEUE_FULL, Refusal.QUEUE_TIMEOUT)
"""More was asked than there are slots for; everything else that is 503 is a part that is away."""
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    _OVERLOADED: "overloaded_error",
}


def render(error: ForebayError, request_id: str) -> Rendered:
    shape = shape_of(error)
    if word_of(error) in _CROWDED:
        shape = replace(shape, status=_OVERLOADED)
    kind = _TYPES.get(shape.status, "api_error" if shape.status >= 500 else "invalid_request_error")
    told = {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": request_id}
    body = orjson.dumps(told)
    return Rendered(shape.status, headers_of(error, shape), body, b"event: error\ndata: " + body + b"\n\n")


ANTHROPIC = Dialect("anthropic", render, id_header="request-id", rate_headers=anthropic_rate_headers)
