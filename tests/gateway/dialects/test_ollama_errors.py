"""Refusals, as Ollama's clients get them."""

from __future__ import annotations

import httpx
import ollama
import orjson
import pytest

from forebay.errors import ForebayError, NotAllowed, Refusal
from forebay_gateway.dialects.ollama.errors import OLLAMA, render
from forebay_gateway.refused import (
    BadField,
    ContextTooLong,
    EngineFailed,
    EngineRefused,
    InvalidKey,
    KeyExpired,
    KeyRevoked,
    ModelUnknown,
    NoKey,
    Refused,
    WrongMethod,
)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NoKey(), 403),
        (InvalidKey(), 403),
        (KeyRevoked(), 403),
        (KeyExpired(), 403),
        (NotAllowed(), 403),
        (BadField("model is required"), 400),
        (ContextTooLong(), 400),
        (ModelUnknown(), 404),
        (WrongMethod("no", "POST"), 405),
        (Refused(Refusal.QUEUE_FULL, "full"), 503),
        (Refused(Refusal.RATE_LIMITED, "fast"), 429),
        (Refused(Refusal.QUOTA_SPENT, "spent"), 429),
        (EngineFailed(), 502),
        (EngineRefused("no", status=422, type="x", param=None, code=None), 422),
        (ForebayError(), 500),
    ],
)
def test_each_refusal_has_its_status_and_a_text(error: ForebayError, status: int) -> None:
    rendered = render(error, "req-1")
    assert rendered.status == status
    assert rendered.event == rendered.body + b"\n"
    told = orjson.loads(rendered.body)
    assert list(told) == ["error"]
    assert error.message in told["error"]
    assert "application/json" in rendered.headers["content-type"]
    assert rendered.headers["x-forebay-reason"]


def test_a_key_that_is_not_known_does_not_ask_for_another_kind_of_login() -> None:
    assert "www-authenticate" not in render(InvalidKey(), "req-1").headers


def test_a_missing_model_is_told_in_the_words_that_clients_look_for() -> None:
    gone = EngineRefused("No such model.", status=404, type="x", param="model", code="model_not_found")
    for error in (ModelUnknown(), ModelUnknown("No backend has the model x."), gone):
        assert orjson.loads(render(error, "req-1").body)["error"].startswith("model not found: ")
    already = EngineRefused("model 'x' not found", status=404, type="x", param="model", code="model_not_found")
    assert orjson.loads(render(already, "req-1").body)["error"] == "model 'x' not found"


def test_a_full_queue_says_when_to_come_again() -> None:
    assert render(Refused(Refusal.QUEUE_FULL, "full", retry_after_s=3.0), "req-1").headers["retry-after"] == "3"


def test_streams_are_lines_without_comments() -> None:
    assert (OLLAMA.name, OLLAMA.stream_type, OLLAMA.takes_comments) == ("ollama", "application/x-ndjson", False)


@pytest.mark.parametrize("stream", [False, True])
def test_the_official_client_shows_the_text(stream: bool) -> None:
    rendered = render(ModelUnknown("No backend has the model x."), "req-1")
    answer = httpx.Response(rendered.status, headers=rendered.headers, content=rendered.body)
    client = ollama.Client(host="http://gateway", transport=httpx.MockTransport(lambda request: answer))
    with pytest.raises(ollama.ResponseError) as caught:
        list(client.chat("x", stream=stream))  # type: ignore[call-overload]
    assert caught.value.status_code == 404
    assert caught.value.error == "model not found: No backend has the model x."
