"""How a refusal looks to a client of the Responses API: as to any of OpenAI's, except in a stream."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus

import orjson

from forebay.errors import ForebayError
from forebay_gateway.canonical.dialect import Dialect, Json, Rendered, Translation
from forebay_gateway.dialects.openai.errors import render as render_openai
from forebay_gateway.dialects.responses.answer import ResponseTranslation
from forebay_gateway.dialects.responses.events import ending, written


def render(error: ForebayError, request_id: str) -> Rendered:
    rendered = render_openai(error, request_id)
    return replace(rendered, event=error_event(orjson.loads(rendered.body)["error"]))


def error_event(body: Json, number: int = 0) -> bytes:
    """`body`: OpenAI's error object.

    OpenAI's reference has the fields in the event itself, its service sends them under `error`, and its SDKs raise only
    on those. Clients read one or the other, so both are there."""
    told = {name: body.get(name) for name in ("code", "message", "param")}
    return written(("error", {**told, "error": {"type": body.get("type"), **told}}), number)


def failing(rendered: Rendered, translation: Translation | None) -> bytes:
    """The error, and then the response as far as it came: some clients raise on the one, others wait for the other."""
    if not isinstance(translation, ResponseTranslation):
        return rendered.event
    body = orjson.loads(rendered.body)["error"]
    error = {"code": _code_of(rendered.status, body), "message": body.get("message")}
    announced, response, number = translation.fail(error)
    return announced + error_event(body, number) + written(ending(response), number + 1)


def _code_of(status: int, body: Json) -> str:
    """Of a failed response there are but a few that clients know."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_exceeded"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "server_error"
    return body.get("code") or "invalid_prompt"


RESPONSES = Dialect("responses", render, failing=failing)
