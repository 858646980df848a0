"""One backend with two keys of which its provider refuses one: requests go on with the other, and it comes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from forebay.clock import ManualClock
from forebay.wire.v1 import scheduler_pb2, types_pb2
from forebay_gateway.credential import Credential
from forebay_gateway.engine_answer import TroubledEngine
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.fleet import Backend
from forebay_gateway.keyring import Keyring
from forebay_gateway.upstream import open_upstream
from tests.compatibility.matrix import house_before
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.provider import API_KEY, FakeProvider, Refused
from tests.fakes.provider_anthropic import FakeAnthropic
from tests.fakes.provider_cohere import FakeCohere
from tests.fakes.provider_gemini import FakeGemini
from tests.gateway.house import MODEL, OUTCOME, House, ask, eventually

BAD, WORSE = "sk-the-bad-key-1234", "sk-the-worse-key-5678"
KINDS = {
    FakeAnthropic: types_pb2.ENGINE_KIND_ANTHROPIC,
    FakeGemini: types_pb2.ENGINE_KIND_GEMINI,
    FakeCohere: types_pb2.ENGINE_KIND_COHERE,
}
each_provider = pytest.mark.parametrize("made", list(KINDS))
REFUSALS = {
    "wrong": Refused(401, "authentication_error", f"Incorrect API key provided: {BAD}"),
    "no money": Refused(400, "invalid_request_error", "Your credit balance is too low to access the API."),
    "not valid": Refused(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    "billing": Refused(402, "billing_error", "Payment required"),
    "forbidden": Refused(403, "permission_error", "Your API key may not use this model"),
    "limit": Refused(429, "rate_limit_error", "Too many requests", retry_after_s=20),
}
ONE_SAYS: dict[str, type[FakeProvider]] = {"no money": FakeAnthropic, "not valid": FakeGemini}
"""In the words of one provider, which are believed of no other."""


@asynccontextmanager
async def house_with_keys(
    directory: Path, made: type[FakeProvider], *others: str
) -> AsyncIterator[tuple[House, FakeProvider]]:
    """The first key is BAD."""
    async with house_before(directory, made(models=(MODEL,)), KINDS[made]) as (house, provider):
        house.admin.set_credential("b1", BAD, **{f"key-{n}": key for n, key in enumerate(others, 2)})
        await asyncio.sleep(0.1)
        yield house, provider


def keys_shown(provider: FakeProvider) -> list[str]:
    names = ("x-api-key", "x-goog-api-key", "authorization")
    return [
        next(a.headers[name].removeprefix("Bearer ") for name in names if name in a.headers) for a in provider.asked
    ]


def resting(house: House, label: str) -> list[str]:
    lines = house.ops.metrics.exposition().decode().splitlines()
    return [
        line for line in lines if line.startswith("forebay_gateway_credentials_quarantined{") and f'"{label}"' in line
    ]


@pytest.mark.parametrize(
    ("made", "why"), [(made, why) for made in KINDS for why in REFUSALS if ONE_SAYS.get(why, made) is made]
)
async def test_the_same_request_goes_on_with_the_other_key_and_nobody_blames_the_backend(
    tmp_path: Path, made: type[FakeProvider], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with house_with_keys(tmp_path, made, API_KEY) as (house, provider):
        provider.refusals[BAD] = REFUSALS[why]
        for streamed in (list(REFUSALS).index(why) % 2 == 0, True, False):
            async with house.post(ask(stream=streamed)) as answer:
                text = await answer.text()
            assert answer.status == 200, text
            assert "word3" in text
            assert answer.headers["x-forebay-attempts"] == "1"
        assert keys_shown(provider) == [BAD, API_KEY, API_KEY, API_KEY]
        assert house.scheduler.nacks == []
        assert len(resting(house, "default")) == 1
        assert resting(house, "key-2") == []
        rows = await house.rows(3)
        assert {(OUTCOME(row.outcome), row.attempts) for row in rows} == {("OUTCOME_FINISHED", 1)}
    rests = [record for record in caplog.records if getattr(record, "action", "") == "credential_rests"]
    assert [(r.backend, r.label) for r in rests] == [("b1", "default")]  # type: ignore[attr-defined]
    for key in (BAD, API_KEY):
        assert key not in "".join(str(vars(record)) for record in caplog.records)


@each_provider
async def test_when_every_key_is_refused_it_is_the_backends_trouble_and_no_key_is_told(
    tmp_path: Path, made: type[FakeProvider]
) -> None:
    async with house_with_keys(tmp_path, made, WORSE) as (house, provider):
        provider.refusals = {key: Refused(401, "authentication_error", f"wrong: {key}") for key in (BAD, WORSE)}
        for asked in (2, 2):  # the second time all of them rest, and nobody is asked
            async with house.post(ask()) as answer:
                text = await answer.text()
            assert answer.status == 502
            assert BAD not in text
            assert WORSE not in text
            assert "credential" in text
            assert len(provider.asked) == asked
        assert [scheduler_pb2.NackClass.Name(n.nack_class) for n in house.scheduler.nacks] == ["NACK_CLASS_FAILED"] * 2


@each_provider
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat"])
async def test_when_every_key_is_over_its_limit_the_client_hears_when_the_first_is_free_again(
    tmp_path: Path, made: type[FakeProvider], path: str
) -> None:
    async with house_with_keys(tmp_path, made, WORSE) as (house, provider):
        provider.refusals = {
            key: Refused(429, "rate_limit_error", f"slower, {key}", retry_after_s=after)
            for key, after in ((BAD, 40), (WORSE, 20))
        }
        body = {**ask(), "max_tokens": 50, "stream": False}
        async with house.client.post(f"{house.url}{path}", json=body, headers=house.headers) as answer:
            told: Any = await answer.json()
        assert (answer.status, answer.headers["x-forebay-reason"]) == (429, "rate_limited")
        assert 18 <= int(answer.headers["retry-after"]) <= 20
        assert WORSE not in str(told)
        if path == "/v1/messages":
            assert told["error"]["type"] == "rate_limit_error"
        elif path == "/v1/chat/completions":
            assert told["error"]["code"] == "rate_limit_exceeded"
        (nack,) = house.scheduler.nacks
        assert scheduler_pb2.NackClass.Name(nack.nack_class) == "NACK_CLASS_BUSY"
        assert 18_000 <= nack.retry_after_ms <= 20_000


async def test_a_lone_keys_limit_reaches_the_client_as_a_limit(tmp_path: Path) -> None:
    async with house_with_keys(tmp_path, FakeCohere) as (house, provider):
        provider.refusals[BAD] = Refused(429, "", "trial keys may ask 20 times a minute", retry_after_s=7)
        async with house.post(ask()) as answer:
            told = (await answer.json())["error"]
        assert (answer.status, answer.headers["retry-after"]) == (429, "7")
        assert "20 times a minute" in told["message"]


async def test_a_refusal_of_the_request_itself_is_asked_of_no_other_key(tmp_path: Path) -> None:
    async with house_with_keys(tmp_path, FakeAnthropic, API_KEY) as (house, provider):
        provider.refusals[BAD] = Refused(400, "invalid_request_error", "tools.0: Field required")
        async with house.post(ask()) as answer:
            assert answer.status == 400
        assert keys_shown(provider) == [BAD]
        assert resting(house, "default") == []


async def test_an_error_of_the_key_that_comes_in_the_streams_place_sends_it_to_rest(tmp_path: Path) -> None:
    async with house_with_keys(tmp_path, FakeGemini, API_KEY) as (house, provider):
        provider.faults.add(Fault(FaultKind.ERROR_EVENT_AFTER, chunks=0))
        provider.error_in_stream = Refused(429, "RESOURCE_EXHAUSTED", "quota")
        house.admin.set_credential("b1", API_KEY, second="another")
        await asyncio.sleep(0.1)
        async with house.post(ask(stream=True)) as answer:
            await answer.read()
        await eventually(lambda: len(resting(house, "default")) == 1)


async def test_a_key_that_is_replaced_is_good_at_once(tmp_path: Path) -> None:
    async with house_with_keys(tmp_path, FakeCohere, WORSE) as (house, provider):
        provider.refusals = {key: REFUSALS["wrong"] for key in (BAD, WORSE)}
        async with house.post(ask()) as answer:
            assert answer.status == 502
        house.admin.set_credential("b1", API_KEY, **{"key-2": WORSE})
        await asyncio.sleep(0.1)
        async with house.post(ask()) as answer:
            assert answer.status == 200, await answer.text()
        assert resting(house, "default") == []


async def test_it_is_tried_again_by_one_request_when_its_rest_is_over() -> None:
    clock = ManualClock()
    held = (Credential("a", BAD), Credential("b", API_KEY))
    keyring = Keyring(lambda _: held, clock)
    async with FakeCohere() as provider, open_upstream(keyring, 5.0) as upstream:
        provider.refusals[BAD] = REFUSALS["wrong"]
        backend = Backend("b1", "b1", provider.url, EngineKind.COHERE, has_credential=True)

        async def send() -> None:
            body = b'{"model": "fake-model", "messages": [{"role": "user", "content": "x"}]}'
            sent = upstream.send(
                backend,
                "/v2/chat",
                lambda *, ask_usage: body,
                model="fake-model",
                request_id="r",
                traceparent=None,
                before_write=lambda connection: None,
            )
            with closing(await sent) as answer:
                await answer.read_all(1 << 20)

        for rest_s in (60, 120, 240):
            for _ in range(3):
                await send()
            clock.advance(rest_s - 1)
            await send()
            clock.advance(1)
        assert keys_shown(provider).count(BAD) == 3
        assert list(keyring.resting()) == []
        provider.refusals.clear()
        held = (Credential("a", API_KEY), Credential("b", API_KEY))
        await send()
        assert list(keyring.resting()) == []
        provider.refusals[API_KEY] = REFUSALS["limit"]
        with pytest.raises(TroubledEngine) as troubled:
            await send()
        assert troubled.value.trouble.retry_after_s == 20
        assert API_KEY not in str(troubled.value)
