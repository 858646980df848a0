"""Errors of requests that no route has taken: in which dialect, and as what."""

from __future__ import annotations

from forebay.errors import ForebayError
from forebay_gateway.callers.call import Call
from forebay_gateway.canonical.dialect import Dialect
from forebay_gateway.dialects.anthropic.errors import ANTHROPIC
from forebay_gateway.dialects.ollama.errors import OLLAMA
from forebay_gateway.dialects.openai.errors import OPENAI


def dialect_of(call: Call) -> Dialect:
    if call.path.startswith("/api/"):
        return OLLAMA
    return ANTHROPIC if call.is_anthropic else OPENAI


def answer_to(dialect: Dialect, error: ForebayError, request_id: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body."""
    rendered = dialect.render(error, request_id)
    return rendered.status, {**dialect.id_headers(request_id), **rendered.headers}, rendered.body


def mistake(request_id: str) -> ForebayError:
    """Ours."""
    return ForebayError(f"Forebay made a mistake; its log has request {request_id}.")
