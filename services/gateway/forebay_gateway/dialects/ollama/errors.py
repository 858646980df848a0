"""How a refusal looks to an Ollama client: `error` is a text, which its command line shows to a person as it is."""

from __future__ import annotations

from dataclasses import replace

import orjson

from forebay.errors import ForebayError
from forebay_gateway.canonical.dialect import Dialect, Rendered
from forebay_gateway.dialects.shape import Shape, headers_of, shape_of


def render(error: ForebayError, request_id: str) -> Rendered:
    shape = shape_of(error)
    if shape.status == 401:
        # For a 401 the command line shows words of its own, about signing in to a cloud; for a 403 it shows ours.
        shape = replace(shape, status=403)
    body = orjson.dumps({"error": _message(error, shape)})
    return Rendered(shape.status, headers_of(error, shape), body, body + b"\n")


def _message(error: ForebayError, shape: Shape) -> str:
    # `ollama stop` and several clients look for these words to tell a missing model from everything else.
    if shape.code == "model_not_found" and "not found" not in error.message:
        return f"model not found: {error.message}"
    return error.message


OLLAMA = Dialect("ollama", render, stream_type="application/x-ndjson", takes_comments=False)
