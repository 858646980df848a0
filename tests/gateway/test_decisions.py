"""The gateway's pure parts: keys, requests, errors, fences, estimates, fleets, wishes, interruptions."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.errors import ForebayError, Refusal, Unavailable
from forebay.keys import new_key, seal_secret
from forebay_gateway.asked import Asked
from forebay_gateway.callers.call import read_call, wished_band, wished_deadline_ms
from forebay_gateway.callers.principals import Band, KeyState, KnownKey, Principal, Principals
from forebay_gateway.canonical.speech import OpenAISpeech
from forebay_gateway.dialects.openai.chat import parse_chat
from forebay_gateway.dialects.openai.errors import render
from forebay_gateway.dialects.shape import SHAPES
from forebay_gateway.engines.errors import Blame, EngineTrouble, judge
from forebay_gateway.fleet import Backend, Fleet, ModelOnBackend, OfferedModel
from forebay_gateway.interrupt import Interruptible
from forebay_gateway.ledger.estimate import TokenRatios
from forebay_gateway.refused import (
    BadField,
    ContextTooLong,
    EngineRefused,
    InvalidKey,
    KeyExpired,
    KeyRevoked,
    Refused,
    as_refusal,
)
from forebay_gateway.slots.fence import Fence

PEPPER = b"pepper"
MESSAGES = [{"role": "user", "content": "x"}]


# --- keys -----------------------------------------------------------------------------------------------------------


def known(key: Any, **changes: Any) -> KnownKey:
    return KnownKey(Principal(key.public_id, "u"), seal_secret(PEPPER, key.secret), **changes)


def test_a_key_is_verified_and_each_way_to_fail_has_its_own_error() -> None:
    good, revoked, expired, disabled = new_key(), new_key(), new_key(), new_key()
    principals = Principals(PEPPER)
    with pytest.raises(Unavailable):
        principals.verify(str(good), now=0)
    principals.replace_all(
        [
            known(good, expires_at=10.0),
            known(revoked, state=KeyState.REVOKED),
            known(expired, expires_at=5.0),
            known(disabled, state=KeyState.USER_DISABLED),
        ],
        version=1,
    )
    assert principals.verify(str(good), now=9.9).user_id == "u"
    for text, error in (
        (f"fb-{good.public_id}-wrong", InvalidKey),
        (str(new_key()), InvalidKey),
        ("", InvalidKey),
        ("fb--", InvalidKey),
        (str(revoked), KeyRevoked),
        (str(expired), KeyExpired),
        (str(disabled), KeyRevoked),
    ):
        with pytest.raises(error):
            principals.verify(text, now=9.0)
    with pytest.raises(InvalidKey):  # a wrong secret must not tell that the key was revoked
        principals.verify(f"fb-{revoked.public_id}-wrong", now=0)


def test_a_key_that_was_right_before_is_asked_again_once_something_changed() -> None:
    key, other = new_key(), new_key()
    principals = Principals(PEPPER)
    principals.replace_all([known(key, expires_at=10.0)], 1)
    for _ in range(2):
        assert principals.verify(str(key), now=9.9).key_id == key.public_id
    with pytest.raises(KeyExpired):
        principals.verify(str(key), now=10.0)
    renewed = KnownKey(
        Principal(key.public_id, "u"),
        seal_secret(PEPPER, other.secret),
        old_secret_hmac=seal_secret(PEPPER, key.secret),
        old_secret_until=20.0,
    )
    principals.change([renewed], [], 2)
    for _ in range(2):
        assert principals.verify(str(key), now=19.9).key_id == key.public_id
    with pytest.raises(InvalidKey):
        principals.verify(str(key), now=20.0)
    principals.change([known(key)], [], 3)
    assert principals.verify(str(key), now=0.0).key_id == key.public_id
    principals.change([known(key, state=KeyState.REVOKED)], [], 4)
    with pytest.raises(KeyRevoked):
        principals.verify(str(key), now=0.0)
    principals.replace_all([known(key)], 5)
    assert principals.verify(str(key), now=0.0).key_id == key.public_id
    principals.change([], [key.public_id], 6)
    with pytest.raises(InvalidKey):
        principals.verify(str(key), now=0.0)
    with pytest.raises(InvalidKey):
        principals.verify(f"{key}\udc80", now=0.0)  # a header may hold bytes that are no text


def test_changes_tell_which_keys_ended() -> None:
    one, two, three = new_key(), new_key(), new_key()
    principals = Principals(PEPPER)
    assert principals.replace_all([known(one), known(two), known(three)], 1) == []
    assert principals.change([known(one, state=KeyState.REVOKED)], [two.public_id], 2) == [one.public_id, two.public_id]
    assert principals.change([known(one, state=KeyState.REVOKED)], [], 3) == []
    assert principals.replace_all([], 4) == [three.public_id]
    assert principals.version == 4


# --- requests -------------------------------------------------------------------------------------------------------


def _body(asked: Asked, *, ask_usage: bool) -> Any:
    body = OpenAISpeech(asked).body(streamed=True, ask_usage=ask_usage)
    assert isinstance(body, bytes)
    return json.loads(body)


def test_a_request_is_read_and_its_unknown_fields_stay() -> None:
    body = {"model": "m", "messages": MESSAGES, "n": 2, "max_tokens": 5, "stream": True, "odd": [1]}
    chat = parse_chat(json.dumps(body).encode())
    assert (chat.model, chat.choices, chat.max_output_tokens, chat.stream, chat.include_usage) == (
        "m",
        2,
        5,
        True,
        False,
    )
    assert _body(chat, ask_usage=True) == {
        **body,
        "stream_options": {"include_usage": True},
    }
    assert _body(chat, ask_usage=False) == body
    plain = parse_chat(b'{"model": "m",  "messages": [{}], "stream": null, "stream_options": {"x": 1}}')
    assert OpenAISpeech(plain).body(streamed=False, ask_usage=True) is plain.raw
    assert _body(plain, ask_usage=False) == {
        "model": "m",
        "messages": [{}],
        "stream": True,
    }


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": 3}, "model", "invalid_type"),
        ({"model": "m" * 300}, "model", "invalid_value"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": ["hi"]}, "messages[0]", "invalid_type"),
        ({"n": True}, "n", "invalid_type"),
        ({"n": 129}, "n", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens", "invalid_type"),
        ({"stream": 1}, "stream", "invalid_type"),
        ({"stream_options": []}, "stream_options", "invalid_type"),
        ({"stream_options": {"include_usage": "y"}}, "stream_options.include_usage", "invalid_type"),
    ],
)
def test_a_bad_field_is_named(changes: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(BadField) as refused:
        parse_chat(json.dumps({"model": "m", "messages": MESSAGES, **changes}).encode())
    assert (refused.value.param, refused.value.code) == (param, code)
    assert param.split(".")[0].split("[")[0] in refused.value.message


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["model", "messages", "n", "stream", "stream_options", "max_tokens"]), inner, max_size=4
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_comes_is_read_or_refused(raw: bytes) -> None:
    try:
        chat = parse_chat(raw)
    except BadField:
        return
    assert chat.choices >= 1
    assert isinstance(_body(chat, ask_usage=True), dict)


def test_wishes_are_capped_by_the_key() -> None:
    cases = [
        (None, Band.INTERACTIVE, Band.STANDARD),
        (None, Band.BATCH, Band.BATCH),
        ("system", Band.INTERACTIVE, Band.INTERACTIVE),
        ("batch", Band.INTERACTIVE, Band.BATCH),
        ("Interactive", Band.SYSTEM, Band.INTERACTIVE),
    ]
    for priority, cap, band in cases:
        headers = {} if priority is None else {"x-forebay-priority": priority}
        assert wished_band(read_call("POST", "/", headers), Principal("k", "u", band_cap=cap)) is band
    for text in ("0", "-1", "1.5", "soon", "99999999999"):
        with pytest.raises(BadField):
            wished_deadline_ms(read_call("POST", "/", {"x-forebay-deadline-ms": text}))


def test_a_key_in_the_path_is_taken_out_of_it() -> None:
    call = read_call("GET", "/k/fb-1-2/v1/models", {"authorization": "Bearer other"})
    assert (call.path, call.key) == ("/v1/models", "fb-1-2")
    assert read_call("GET", "/k/fb-1-2", {}).path == "/"
    told = {"anthropic-version": "2026-10-21", "anthropic-beta": "a-2026,b"}
    assert read_call("POST", "/anthropic/v1/messages", told).said == told
    assert read_call("POST", "/v1/messages", {"anthropic-beta": "a\r\nb"}).said == {}
    assert read_call("POST", "/v1/chat/completions", told).said == {}
    assert read_call("GET", "/v1/models", {"authorization": "Basic x", "x-api-key": "k"}).key == "k"


# --- errors ---------------------------------------------------------------------------------------------------------


def test_every_refusal_has_a_shape_that_sdks_understand() -> None:
    assert set(SHAPES) == set(Refusal)
    for word in Refusal:
        rendered = render(Refused(word, "Why, and what to do."), "req-1")
        body = json.loads(rendered.body)["error"]
        assert set(body) == {"message", "type", "param", "code"}
        assert rendered.headers["x-forebay-reason"] == word
        assert 400 <= rendered.status < 600
        retryable = rendered.status in (502, 503) or word in (
            Refusal.RATE_LIMITED,
            Refusal.CONCURRENCY_LIMITED,
            Refusal.ADDRESS_BANNED,
        )
        if word is Refusal.OUTPUT_INVALID:  # the same again, and paid for again: that is for its client to decide
            retryable = False
        assert ("retry-after" in rendered.headers) is retryable


def test_a_time_to_retry_is_told_in_both_headers_and_never_beyond_what_sdks_read() -> None:
    headers = render(Refused(Refusal.RATE_LIMITED, "x", retry_after_s=0.25), "req-1").headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("1", "250")
    headers = render(Refused(Refusal.QUEUE_FULL, "x", retry_after_s=4000), "req-1").headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("120", "120000")
    spent = render(Refused(Refusal.QUOTA_SPENT, "x", retry_after_s=4000), "req-1").headers
    assert "retry-after" not in spent
    assert spent["x-should-retry"] == "false"


def test_a_word_of_another_version_is_internal() -> None:
    assert as_refusal("quota_spent") is Refusal.QUOTA_SPENT
    assert as_refusal("invented later") is Refusal.INTERNAL


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"object": "error", "message": "This model's maximum context length is 4096 tokens. However, you …"}),
        (400, {"error": {"message": "x", "type": "invalid_request_error", "code": "context_length_exceeded"}}),
        (400, {"error": {"code": 400, "type": "exceed_context_size_error", "message": "the request exceeds the …"}}),
        (400, {"error": {"code": 400, "message": "the request exceeds the available context size, try …"}}),
        (400, {"error": {"message": "The decoder prompt (length 9) is longer than the maximum model length of 8."}}),
        (400, {"error": {"message": "The input (9 tokens) is longer than the model's context length (8 tokens)."}}),
        (400, {"error": "input length exceeds the context length"}),
        (400, {"error": "the input length exceeds maximum context length"}),
        (
            500,
            {"error": {"code": 500, "message": "input (700 tokens) is too large to process. increase the physical …"}},
        ),
    ],
)
def test_a_prompt_that_is_too_long_is_recognised_in_every_engines_words(status: int, body: Any) -> None:
    assert isinstance(judge(status, json.dumps(body).encode(), None), ContextTooLong)


@pytest.mark.parametrize(
    ("status", "after", "blame", "after_s"),
    [
        (429, "3", Blame.BUSY, 3.0),
        (503, "Wed, 21 Oct 2026 07:28:00 GMT", Blame.BUSY, None),
        (500, None, Blame.FAILED, None),
        (502, None, Blame.FAILED, None),
        (401, None, Blame.FAILED, None),
        (302, None, Blame.FAILED, None),
    ],
)
def test_what_another_backend_may_do_better_is_trouble(
    status: int, after: str | None, blame: Blame, after_s: float | None
) -> None:
    trouble = judge(status, b"not json at all", after)
    assert isinstance(trouble, EngineTrouble)
    assert (trouble.blame, trouble.retry_after_s) == (blame, after_s)
    assert "not json at all" in trouble.message


def test_the_clients_own_fault_keeps_the_engines_status_and_words() -> None:
    error = judge(404, b'{"error": {"message": "The model has no such adapter.", "code": 404}}', None)
    assert isinstance(error, EngineRefused)
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    error = judge(422, b'{"detail": [{"loc": ["temperature"]}]}', None)
    assert isinstance(error, EngineRefused)
    assert "temperature" in error.message


# --- time and numbers -----------------------------------------------------------------------------------------------


def test_the_fence_counts_from_the_frame_that_was_acknowledged() -> None:
    fence = Fence(90)
    assert fence.past_at < 0, "nothing was ever heard"
    fence.sent(1, now=100.0)
    fence.sent(2, now=101.0)
    fence.heard(1, renewed_ago_s=0.5)
    assert fence.past_at >= 189.4
    assert fence.past_at < 189.6
    fence.heard(2, renewed_ago_s=0.5)
    assert fence.past_at >= 190.4


def test_a_frame_that_lay_in_a_buffer_extends_nothing() -> None:
    fence = Fence(90)
    fence.sent(1, now=100.0)
    fence.heard(1, renewed_ago_s=1.0)
    # The machine sleeps for an hour; the same leader's old answer is read only now.
    fence.heard(1, renewed_ago_s=1.0)
    assert fence.past_at < 3700.0
    fence.heard(7, renewed_ago_s=0.0)
    assert fence.past_at < 3700.0, "an acknowledgement of what was never sent says nothing"


def test_bytes_per_token_are_learnt() -> None:
    ratios = TokenRatios()
    assert ratios.estimate("m", 4000) == 1000
    ratios.learn("m", 4000, 2000)
    assert ratios.estimate("m", 4000) == 2000
    for _ in range(200):
        ratios.learn("m", 4000, 500)
    assert 495 <= ratios.estimate("m", 4000) <= 505
    ratios.learn("m", 4000, 0)
    assert ratios.estimate("m", 0) == 1
    assert ratios.estimate("other", 4000) == 1000


def test_the_fleet_tells_which_models_a_pool_has_and_what_is_lost() -> None:
    fleet = Fleet()
    assert not fleet.is_known
    one = Backend("a", "a", "http://a", models={"m": ModelOnBackend("m", 8192)})
    two = Backend("b", "b", "http://b", is_unhealthy=True, models={"m": ModelOnBackend("m", 4096)})
    off = Backend("c", "c", "http://c", enabled=False, models={"z": ModelOnBackend("z")})
    far = Backend("d", "d", "http://d", pool="p", models={"y": ModelOnBackend("y")})
    fleet.replace_all([one, two, off, far])
    assert fleet.offered("default") == [OfferedModel("m", 4096)]
    assert fleet.offered("p") == [OfferedModel("y", None)]
    assert fleet.has("m", "default")
    assert not fleet.has("z", "default")
    assert [fleet.is_lost(i) for i in "abx"] == [False, True, True]
    fleet.change([], ["a", "b"])
    assert fleet.offered("default") == []


# --- interruptions --------------------------------------------------------------------------------------------------


async def test_an_interruption_becomes_its_error_and_a_cancellation_stays_one() -> None:
    async def wait(interruptible: Interruptible) -> str:
        try:
            with interruptible:
                await asyncio.sleep(10)
        except ForebayError as error:
            return error.message
        return "nothing"

    interruptible = Interruptible()
    waiting = asyncio.create_task(wait(interruptible))
    await asyncio.sleep(0)
    interruptible.interrupt(ForebayError("first"))
    interruptible.interrupt(ForebayError("second"))
    assert await waiting == "first"
    interruptible.interrupt(ForebayError("too late"))
    await asyncio.sleep(0)

    both = Interruptible()
    waiting = asyncio.create_task(wait(both))
    await asyncio.sleep(0)
    both.interrupt(ForebayError("x"))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_a_star_in_what_a_key_allows_stands_for_anything() -> None:
    limited = Principal("k", "u", allowed_models=frozenset({"llama*", "qwen/exact"}))
    allowed = [name for name in ("llama3:8b", "llama", "qwen/exact", "qwen/other", "my-llama") if limited.may_use(name)]
    assert allowed == ["llama3:8b", "llama", "qwen/exact"]
    assert Principal("k", "u").may_use("anything")


def test_what_an_engine_cannot_do_is_told_to_the_client_and_not_held_against_the_engine() -> None:
    body = {
        "error": {"code": 501, "message": "This server does not support embeddings.", "type": "not_supported_error"}
    }
    error = judge(501, json.dumps(body).encode(), None)
    assert isinstance(error, EngineRefused)
    assert (error.status, error.type) == (400, "not_supported_error")
    assert "does not support embeddings" in error.message


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (404, b'{"detail":"Not Found"}'),
        (404, b'{"error":{"message":"Not Found","type":"NotFoundError","param":null,"code":404}}'),
        (404, b"404 page not found"),
        (404, b'{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}'),
        (404, b"<html>\r\n<head><title>404 Not Found</title></head>"),
        (405, b'{"detail":"Method Not Allowed"}'),
    ],
)
def test_an_address_that_an_engine_does_not_have_is_a_matter_of_the_model(status: int, told: bytes) -> None:
    error = judge(status, told, None)
    assert isinstance(error, EngineRefused)
    assert (error.status, error.param, error.code) == (400, "model", "unsupported_model")
    other = judge(404, b'{"error": {"message": "No adapter of that name.", "code": 404}}', None)
    assert isinstance(other, EngineRefused)
    assert other.status == 404
