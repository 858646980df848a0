"""How a refusal looks to a client of the Responses API: as to any of OpenAI's, except in a stream."""

from __future__ import annotations

from dataclasses import replace

import orjson

from forebay.errors import ForebayError
from forebay_gateway.canonical.dialect import Dialect, Json, Rendered
from forebay_gateway.dialects.openai.errors import render as render_openai


def render(error: ForebayError, request_id: str) -> Rendered:
    rendered = render_openai(error, request_id)
    return replace(rendered, event=error_event(orjson.loads(rendered.body)["error"]))


def error_event(body: Json) -> bytes:
    """`body`: OpenAI's error object. The last event of a stream that cannot go on.

    OpenAI's reference has the fields in the event itself, its service sends them under `error`, and its SDKs raise only
    on those. Clients read one or the other, so both are there."""
    told = {name: body.get(name) for name in ("code", "message", "param")}
    event = {"type": "error", **told, "sequence_number": 0, "error": {"type": body.get("type"), **told}}
    return b"event: error\ndata: %b\n\n" % orjson.dumps(event)


RESPONSES = Dialect("responses", render)
