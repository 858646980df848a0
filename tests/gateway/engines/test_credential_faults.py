"""What a provider's error answer says of the credential, and what it says of the request, whoever's words stand in it."""

from __future__ import annotations

import json

import pytest

from forebay_gateway.credential import CredentialFault
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.engines.errors import Blame, EngineTrouble, in_stream, judge
from forebay_gateway.refused import ContextTooLong, EngineRefused

POOR = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."
WRONG = "API key not valid. Please pass a valid API key."
XAI_CODE = "The caller does not have permission to execute the specified operation"
TEAM, KEY = "0f6c6a3e-4be0-4f3c-a27c-1d5f7a4f7a10", "b5b1d9c2-0d1c-4b8a-8f49-5d2c3b1a9e77"
ORG = "org-VDAWofJASuLH0vVz8o9tiQZr"
TOO_LARGE = (
    f"Request too large for gpt-4o in organization {ORG} on tokens per min (TPM): Limit 30000, Requested 43210. The input "
    "or output tokens must be reduced in order to run successfully."
)
SCOPES = "You have insufficient permissions for this operation. Missing scopes: model.request. Check your role."


def body(**error: object) -> bytes:
    return json.dumps({"error": error}).encode()


@pytest.mark.parametrize("kind", list(EngineKind))
@pytest.mark.parametrize("said", [WRONG, POOR, "API key expired"])
@pytest.mark.parametrize("around", ["Invalid value: '{}'. Supported values are: 'low'.", " {}", "`{}` is no effort"])
@pytest.mark.parametrize("status", [400, 404, 422])
def test_what_a_client_wrote_says_nothing_of_a_credential(
    kind: EngineKind, said: str, around: str, status: int
) -> None:
    told = body(message=around.format(said), code="invalid_value", param="reasoning_effort")
    assert isinstance(judge(status, told, None, kind), EngineRefused)


@pytest.mark.parametrize(
    ("shown_to", "status", "said"),
    [
        (EngineKind.OPENAI, 400, POOR),
        (EngineKind.OPENAI, 400, WRONG),
        (EngineKind.GEMINI, 400, POOR),
        (EngineKind.ANTHROPIC, 400, WRONG),
        (None, 400, POOR),
        (None, 400, WRONG),
        (EngineKind.ANTHROPIC, 422, POOR),
        (EngineKind.GEMINI, 404, WRONG),
    ],
)
def test_only_who_was_shown_a_credential_and_speaks_so_is_taken_to_mean_it(
    shown_to: EngineKind | None, status: int, said: str
) -> None:
    assert isinstance(judge(status, body(message=said), None, shown_to), EngineRefused)


@pytest.mark.parametrize(
    ("shown_to", "said"),
    [
        (EngineKind.ANTHROPIC, POOR),
        (EngineKind.GEMINI, WRONG),
        (EngineKind.GEMINI, "API key expired. Please renew the API key."),
        (EngineKind.GEMINI, "API Key not found. Please pass a valid API key."),
    ],
)
def test_a_providers_own_sentence_is_about_the_credential(shown_to: EngineKind, said: str) -> None:
    judged = judge(400, body(message=said), None, shown_to)
    assert isinstance(judged, EngineTrouble)
    assert judged.fault is CredentialFault.REFUSED
    in_place = in_stream({"type": "invalid_request_error", "message": said}, said, shown_to)
    assert isinstance(in_place, EngineTrouble)
    assert in_place.fault is CredentialFault.REFUSED


def test_what_xai_holds_back_is_the_clients_matter_and_names_neither_team_nor_key() -> None:
    said = (
        f"Content violates usage guidelines. Team: {TEAM}, API key ID: {KEY}, Model: grok-4, "
        "Failed check: SAFETY_CHECK_TYPE_BIO"
    )
    judged = judge(403, json.dumps({"code": XAI_CODE, "error": said}).encode(), None)
    assert isinstance(judged, EngineRefused)
    assert (judged.status, judged.code) == (400, "content_filter")
    assert "Content violates usage guidelines. Model: grok-4, Failed check: SAFETY_CHECK_TYPE_BIO" in judged.message


@pytest.mark.parametrize(
    "said",
    [
        "Failed check: SAFETY_CHECK_TYPE_CSAM",
        "The response was filtered by our content policy.",
        "Blocked by the content filter",
        "openai/gpt-4o requires moderation. Your input was flagged.",
    ],
)
def test_words_that_are_held_back_are_known_by_what_is_said(said: str) -> None:
    judged = judge(403, body(message=said, code=403), None)
    assert isinstance(judged, EngineRefused)
    assert judged.code == "content_filter"


@pytest.mark.parametrize(
    "told",
    [
        body(message="Project `p` does not have access to model `omni-moderation-latest`", code="model_not_found"),
        body(message="Your API key may not use omni-moderation-latest"),
        json.dumps({"code": XAI_CODE, "error": "Your team has no access to this model."}).encode(),
    ],
)
def test_a_model_that_a_key_may_not_use_is_the_keys_matter_whatever_its_name(told: bytes) -> None:
    judged = judge(403, told, None)
    assert isinstance(judged, EngineTrouble)
    assert judged.fault is CredentialFault.FORBIDDEN


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (429, TOO_LARGE),
        (429, TOO_LARGE.replace("gpt-4o", "gpt-4.1-2025-04-14 (for limit gpt-4.1)")),
        (413, f"Request too large for model `m` in organization `{ORG}` on tokens per minute (TPM): Limit 6000"),
    ],
)
def test_a_request_that_no_waiting_makes_smaller_is_too_long_and_names_no_organisation(status: int, said: str) -> None:
    judged = judge(status, body(message=said, type="tokens", code="rate_limit_exceeded"), "20")
    assert isinstance(judged, ContextTooLong)
    assert "Limit" in judged.message
    assert "org-" not in judged.message


def test_a_rate_that_is_reached_is_still_a_limit() -> None:
    said = f"Rate limit reached for gpt-4o in organization {ORG} on tokens per min (TPM): Limit 30000, Used 29937."
    judged = judge(429, body(message=said, code="rate_limit_exceeded"), "3")
    assert isinstance(judged, EngineTrouble)
    assert (judged.blame, judged.fault, judged.retry_after_s) == (Blame.BUSY, CredentialFault.LIMITED, 3.0)


def test_a_scope_that_is_missing_is_missing_there_and_no_proof_of_a_wrong_key() -> None:
    judged = judge(401, body(message=SCOPES, type="invalid_request_error"), None)
    assert isinstance(judged, EngineTrouble)
    assert judged.fault is CredentialFault.FORBIDDEN
