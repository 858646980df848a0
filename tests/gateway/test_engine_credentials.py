"""How an engine is shown a credential, and what its errors say of it."""

from __future__ import annotations

import pytest

from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.engines.credentials import headers_for
from forebay_gateway.engines.errors import Blame, EngineTrouble, judge
from forebay_gateway.refused import ContextTooLong, EngineRefused

VERSION = {"anthropic-version": "2023-06-01"}
BETA = {"anthropic-beta": "a-2026,b"}
TITLES = {"http-referer": "https://app.example.com", "x-title": "An app"}


def test_each_kind_is_shown_its_credential_in_a_header_of_its_own() -> None:
    assert headers_for(EngineKind.ANTHROPIC, "k") == {**VERSION, "x-api-key": "k"}
    assert headers_for(EngineKind.GEMINI, "k") == {"x-goog-api-key": "k"}
    assert headers_for(EngineKind.AZURE, "k", TITLES) == {"api-key": "k"}
    for kind in EngineKind:
        if kind not in (EngineKind.ANTHROPIC, EngineKind.GEMINI, EngineKind.AZURE):
            assert headers_for(kind, "k", BETA) == {"authorization": "Bearer k"}


def test_without_a_credential_only_the_version_is_said() -> None:
    for kind in EngineKind:
        assert headers_for(kind, None) == (VERSION if kind is EngineKind.ANTHROPIC else {})


def test_what_an_anthropic_client_says_of_its_body_goes_to_anthropic_alone() -> None:
    assert headers_for(EngineKind.ANTHROPIC, None, BETA) == {**VERSION, **BETA}
    later = {"anthropic-version": "2026-10-21"}
    assert headers_for(EngineKind.ANTHROPIC, "k", later) == {**later, "x-api-key": "k"}
    assert headers_for(EngineKind.GEMINI, "k", BETA) == {"x-goog-api-key": "k"}


def test_the_names_of_applications_go_to_openrouter_alone() -> None:
    shown = {"authorization": "Bearer k"}
    assert headers_for(EngineKind.OPENROUTER, "k", {**BETA, **TITLES}) == {**TITLES, **shown}
    assert headers_for(EngineKind.OPENAI, "k", TITLES) == shown


def anthropic(kind: str, message: str) -> bytes:
    return b'{"type":"error","error":{"type":"%b","message":"%b"}}' % (kind.encode(), message.encode())


def gemini(code: int, word: str, message: str, more: str = "") -> bytes:
    return b'{"error":{"code":%d,"status":"%b","message":"%b"%b}}' % (
        code,
        word.encode(),
        message.encode(),
        more.encode(),
    )


@pytest.mark.parametrize(
    ("status", "body", "blame", "retry_after_s"),
    [
        (529, anthropic("overloaded_error", "Overloaded"), Blame.BUSY, None),
        (429, anthropic("rate_limit_error", "This would exceed your rate limit"), Blame.BUSY, None),
        (400, anthropic("invalid_request_error", "Your credit balance is too low to use the API."), Blame.FAILED, None),
        (402, anthropic("billing_error", "no money"), Blame.FAILED, None),
        (401, anthropic("authentication_error", "invalid x-api-key"), Blame.FAILED, None),
        (503, gemini(503, "UNAVAILABLE", "The model is overloaded."), Blame.BUSY, None),
        (400, gemini(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."), Blame.FAILED, None),
        (
            429,
            gemini(429, "RESOURCE_EXHAUSTED", "quota", ',"details":[{"@type":"x"},{"@type":"y","retryDelay":"34.5s"}]'),
            Blame.BUSY,
            34.5,
        ),
    ],
)
def test_what_is_the_providers_trouble_or_forebays_account_there_may_go_better_elsewhere(
    status: int, body: bytes, blame: Blame, retry_after_s: float | None
) -> None:
    judged = judge(status, body, None, EngineKind.GEMINI if b'"status"' in body else EngineKind.ANTHROPIC)
    assert isinstance(judged, EngineTrouble)
    assert (judged.blame, judged.retry_after_s) == (blame, retry_after_s)


@pytest.mark.parametrize(
    "body",
    [
        anthropic("invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum"),
        anthropic(
            "invalid_request_error", "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000"
        ),
        gemini(
            400,
            "INVALID_ARGUMENT",
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        ),
    ],
)
def test_a_prompt_that_is_too_long_is_told_as_such(body: bytes) -> None:
    assert isinstance(judge(400, body, None), ContextTooLong)


def test_other_refusals_are_the_clients_and_an_unknown_model_is_nobodys() -> None:
    refused = judge(400, anthropic("invalid_request_error", "tools.0: Field required"), None)
    assert isinstance(refused, EngineRefused)
    assert (refused.status, refused.type) == (400, "invalid_request_error")
    for body in (anthropic("not_found_error", "model: claude-9"), gemini(404, "NOT_FOUND", "models/x is not found")):
        unknown = judge(404, body, None)
        assert isinstance(unknown, EngineTrouble)
        assert unknown.blame is Blame.MODEL_GONE
