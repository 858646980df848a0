"""Refusals and lists of models as Anthropic's clients get them."""

from __future__ import annotations

import orjson
import pytest

from forebay.errors import ForebayError, NotAllowed, Refusal
from forebay_gateway.dialects.anthropic.errors import ANTHROPIC
from forebay_gateway.dialects.anthropic.models import list_models, show_model
from forebay_gateway.fleet import Backend, Fleet, ModelOnBackend, OfferedModel
from forebay_gateway.refused import (
    BadField,
    BodyTooLarge,
    Draining,
    EngineFailed,
    EngineRefused,
    InvalidKey,
    ModelUnknown,
    Refused,
    WrongMethod,
)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (BadField("x", param="max_tokens"), 400, "invalid_request_error"),
        (InvalidKey(), 401, "authentication_error"),
        (NotAllowed(), 403, "permission_error"),
        (ModelUnknown(), 404, "not_found_error"),
        (WrongMethod("x", "POST"), 405, "invalid_request_error"),
        (BodyTooLarge(), 413, "request_too_large"),
        (EngineRefused("x", status=422, type="t", param=None, code=None), 422, "invalid_request_error"),
        (Refused(Refusal.RATE_LIMITED, "x"), 429, "rate_limit_error"),
        (Refused(Refusal.QUOTA_SPENT, "x"), 429, "rate_limit_error"),
        (ForebayError(), 500, "api_error"),
        (EngineFailed(), 502, "api_error"),
        (Refused(Refusal.NO_BACKEND, "x"), 503, "api_error"),
        (Draining(), 503, "api_error"),
        (Refused(Refusal.QUEUE_FULL, "x"), 529, "overloaded_error"),
        (Refused(Refusal.QUEUE_TIMEOUT, "x"), 529, "overloaded_error"),
    ],
)
def test_each_refusal_has_the_type_that_sdks_know(error: ForebayError, status: int, kind: str) -> None:
    rendered = ANTHROPIC.render(error, "req_1")
    assert rendered.status == status
    assert orjson.loads(rendered.body) == {
        "type": "error",
        "error": {"type": kind, "message": error.message},
        "request_id": "req_1",
    }
    assert rendered.event == b"event: error\ndata: " + rendered.body + b"\n\n"


def test_every_word_has_a_body() -> None:
    for word in Refusal:
        assert ANTHROPIC.render(Refused(word, "x"), "req_1").headers["x-forebay-reason"] == word


def test_the_headers_say_when_to_come_back_and_when_not() -> None:
    crowded = ANTHROPIC.render(Refused(Refusal.QUEUE_FULL, "x", retry_after_s=7), "req_1").headers
    assert crowded["retry-after"] == "7"
    spent = ANTHROPIC.render(Refused(Refusal.QUOTA_SPENT, "x", retry_after_s=7), "req_1").headers
    assert spent["x-should-retry"] == "false"
    assert "retry-after" not in spent


def fleet() -> Fleet:
    fleet = Fleet()
    models = {name: ModelOnBackend(name, length) for name, length in (("small", 4096), ("large", None))}
    fleet.replace_all([Backend("b", "b", "http://b", models=models)])
    return fleet


def test_models_are_listed_on_one_page_in_anthropics_shape() -> None:
    listed = list_models(fleet().offered("default"), 0, {})
    assert {model["id"] for model in listed["data"]} == {"small", "large"}
    assert listed["has_more"] is False
    assert (listed["first_id"], listed["last_id"]) == (listed["data"][0]["id"], listed["data"][-1]["id"])
    assert list_models([], 0, {}) == {
        "data": [],
        "has_more": False,
        "first_id": None,
        "last_id": None,
    }


@pytest.mark.parametrize(
    ("query", "names", "has_more"),
    [
        ({"limit": "2"}, "ab", True),
        ({"limit": "2", "after_id": "b"}, "cd", True),
        ({"limit": "2", "after_id": "c"}, "de", False),
        ({"after_id": "e"}, "", False),
        ({"limit": "2", "before_id": "e"}, "cd", True),
        ({"limit": "2", "before_id": "c"}, "ab", False),
        ({"limit": "1000"}, "abcde", False),
    ],
)
def test_models_come_in_pages_forth_and_back(query: dict[str, str], names: str, has_more: bool) -> None:
    listed = list_models([OfferedModel(name, None) for name in "abcde"], 0, query)
    assert ("".join(model["id"] for model in listed["data"]), listed["has_more"]) == (names, has_more)
    assert (listed["first_id"], listed["last_id"]) == ((names[0], names[-1]) if names else (None, None))


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"after_id": "z"}, "after_id"),
        ({"before_id": "z"}, "before_id"),
        ({"after_id": "a", "before_id": "b"}, "before_id"),
    ],
)
def test_a_page_that_there_cannot_be_is_refused(query: dict[str, str], param: str) -> None:
    with pytest.raises(BadField) as caught:
        list_models([OfferedModel(name, None) for name in "ab"], 0, query)
    assert caught.value.param == param


def test_one_model_is_shown() -> None:
    assert show_model(OfferedModel("small", 4096), created=1_700_000_000) == {
        "type": "model",
        "id": "small",
        "display_name": "small",
        "created_at": "2023-11-14T22:13:20Z",
        "lifecycle": "active",
        "max_input_tokens": 4096,
    }
