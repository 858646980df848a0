"""How a refusal looks to an OpenAI client. SDKs switch on `code` and show `message` to a person."""

from __future__ import annotations

import orjson

from forebay.errors import ForebayError
from forebay_gateway.canonical.dialect import Dialect, Rendered
from forebay_gateway.dialects.shape import headers_of, shape_of


def render(error: ForebayError, request_id: str) -> Rendered:
    shape = shape_of(error)
    told = {"message": error.message, "type": shape.type, "param": shape.param, "code": shape.code}
    body = orjson.dumps({"error": told})
    return Rendered(shape.status, headers_of(error, shape), body, b"data: " + body + b"\n\n")


OPENAI = Dialect("openai", render)
