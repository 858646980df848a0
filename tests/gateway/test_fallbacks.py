"""Another model answers when the one that was asked for cannot: which one, when, and what clients and the ledger see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import ollama
import pytest
from anthropic import AsyncAnthropic
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI

from forebay.errors import ForebayError, Refusal
from forebay.wire.v1 import admin_pb2, scheduler_pb2, types_pb2
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.fleet import Backend, Fleet, ModelOnBackend
from forebay_gateway.held_body import HeldBody
from forebay_gateway.other_models import HasWaited
from forebay_gateway.refused import BadField, ContextTooLong, EngineRefused, ModelUnknown, Refused
from forebay_gateway.rules.fallbacks import FAR_ABOVE, Candidate, Order, Price, Why, choose, why_another
from forebay_gateway.rules.first_tokens import FirstTokens
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_orders import Pace
from tests.gateway.house import OUTCOME, House, ask, eventually, open_house
from tests.gateway.sse_text import stream, text_of

QUICK = Pace(tokens_per_s=2000, answer_tokens=4)
SLOW = Pace(tokens_per_s=20, answer_tokens=40)
ALWAYS = Fault(FaultKind.STATUS, status=500, times=None)


# --- the choice -------------------------------------------------------------------------------------------------------

CANDIDATES = st.lists(
    st.builds(
        Candidate,
        name=st.sampled_from("abcdef"),
        model=st.sampled_from("abcdef"),
        is_well=st.booleans(),
        lacks_something=st.booleans(),
        prompt_tokens=st.integers(1, 10_000),
        context_length=st.none() | st.integers(1, 10_000),
        cost=st.integers(0, 100),
        first_token_s=st.none() | st.floats(0, 100),
    ),
    max_size=6,
)


@given(
    CANDIDATES,
    st.sampled_from(Order),
    st.sampled_from(Why),
    st.sets(st.sampled_from("abcdef")),
    st.none() | st.integers(1, 10_000),
)
def test_whoever_is_chosen_can_do_it_and_is_the_best_of_those_who_can(
    candidates: list[Candidate], order: Order, why: Why, tried: set[str], refused_at: int | None
) -> None:
    def able(one: Candidate) -> bool:
        return choose([one], order, why, tried=tried, refused_at=refused_at) is not None

    chosen = choose(candidates, order, why, tried=tried, refused_at=refused_at)
    others = [one for one in candidates if able(one)]
    if chosen is None:
        assert not others
        return
    assert chosen.model not in tried
    assert chosen.is_well
    assert not chosen.lacks_something
    if chosen.context_length is not None:
        assert chosen.prompt_tokens <= FAR_ABOVE * chosen.context_length
    if why is Why.CONTEXT_TOO_LONG:
        assert chosen.context_length is not None
        assert chosen.context_length > (refused_at if refused_at is not None else chosen.prompt_tokens)
    match order:
        case Order.LISTED:
            assert chosen is others[0]
        case Order.CHEAPEST:
            assert chosen.cost == min(one.cost for one in others)
        case Order.SOONEST:
            known = [one.first_token_s for one in others if one.first_token_s is not None]
            assert chosen.first_token_s == (min(known) if known else None)


@given(CANDIDATES, st.sampled_from(Order))
def test_however_often_it_is_asked_it_ends_and_nobody_is_named_twice(candidates: list[Candidate], order: Order) -> None:
    tried: list[str] = []
    while (chosen := choose(candidates, order, Why.QUEUE_FULL, tried=tried)) is not None:
        tried.append(chosen.model)
        assert len(tried) <= len(candidates)
    assert len(tried) == len(set(tried))


def behind(word: Refusal, told_as: Refusal) -> Refused:
    error = Refused(told_as, "…")
    error.__cause__ = Refused(word, "…")
    return error


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (Refused(Refusal.NO_BACKEND, "…"), Why.NO_BACKEND),
        (Refused(Refusal.QUEUE_FULL, "…"), Why.QUEUE_FULL),
        (Refused(Refusal.QUEUE_TIMEOUT, "…"), Why.QUEUE_TIMEOUT),
        (Refused(Refusal.ENGINE_FAILED, "…"), Why.ENGINE_FAILED),
        (behind(Refusal.ENGINE_FAILED, Refusal.RATE_LIMITED), Why.ENGINE_FAILED),  # a provider's limit
        (ModelUnknown(), Why.NO_BACKEND),
        (ContextTooLong(), Why.CONTEXT_TOO_LONG),
        (Refused(Refusal.RATE_LIMITED, "…"), None),  # the client's own
        (Refused(Refusal.QUOTA_SPENT, "…"), None),
        (Refused(Refusal.NO_SCHEDULER, "…"), None),
        (EngineRefused("…", status=422, type="x", param=None, code=None), None),
        (BadField("…"), None),
    ],
)
def test_another_model_is_asked_where_that_can_help(error: ForebayError, why: Why | None) -> None:
    assert why_another(error) is why


def test_prices_are_compared_for_the_tokens_that_are_expected() -> None:
    assert Price(prompt=1, completion=5).of(1000, 10) < Price(prompt=2, completion=1).of(1000, 10)
    assert Price(prompt=1, completion=5).of(10, 1000) > Price(prompt=2, completion=1).of(10, 1000)
    assert Price().of(1000, 1000) == 0


def test_first_tokens_are_remembered_for_a_while_and_newer_ones_weigh_more() -> None:
    seen = FirstTokens()
    assert seen.expected_s("p", "m", 0.0) is None
    seen.note("p", "m", 1.0, 0.0)
    seen.note("p", "m", 2.0, 1.0)
    assert seen.expected_s("p", "m", 2.0) == pytest.approx(1.2)
    assert seen.expected_s("other", "m", 2.0) is None
    assert [(pool, model) for pool, model, _ in seen.lately(2.0)] == [("p", "m")]
    assert seen.expected_s("p", "m", 1000.0) is None, "what was long ago says nothing of now"
    seen.note("p", "m", 5.0, 1000.0)
    assert seen.expected_s("p", "m", 1000.0) == 5.0


# --- a gateway with a big model and others ------------------------------------------------------------------------------


def fallback(*others: str, model: str = "big", **fields: Any) -> admin_pb2.ModelFallback:
    return admin_pb2.ModelFallback(model=model, others=others or ("small",), **fields)


async def heard(house: House, *fallbacks: admin_pb2.ModelFallback, **more: Any) -> None:
    """And the gateway knows it."""
    sign = f"sign-{house.admin._version}"
    aliases = [admin_pb2.ModelAlias(alias=sign, model="small"), *more.pop("aliases", ())]
    house.admin.rule(aliases=aliases, fallbacks=fallbacks, **more)
    async with asyncio.timeout(30):
        while True:
            async with house.client.get(f"{house.url}/v1/models/{sign}", headers=house.headers) as answer:
                if answer.status == 200:
                    return


@asynccontextmanager
async def open_pair(
    directory: Path,
    *fallbacks: admin_pb2.ModelFallback,
    big: FakeEngine | None = None,
    others: Sequence[str] = ("small",),
    **settings: Any,
) -> AsyncIterator[tuple[House, FakeEngine, FakeEngine]]:
    """`b1` has the model `big`, `b2` all `others`."""
    big, small = big or FakeEngine(models=("big",), pace=QUICK), FakeEngine(models=others, pace=QUICK)
    async with open_house(directory, big, small, **settings) as house:
        await house.put("b1", big.url, models=["big"], slots=big.slots.total)
        await house.put("b2", small.url, models=others)
        house.scheduler.serves = {"b1": {"big"}, "b2": set(others)}
        await heard(house, *(fallbacks or (fallback(),)))
        yield house, big, small


def refusal(word: str) -> scheduler_pb2.Reject:
    return scheduler_pb2.Reject(reason=word, message="Not now.", retry_after_ms=4000)


async def row_of(house: House) -> tuple[Any, ...]:
    (row,) = await house.rows(1)
    return OUTCOME(row.outcome), row.model_requested, row.model, row.backend_id, row.attempts


BY_SMALL = ("OUTCOME_FINISHED", "big", "small", "b2")


@pytest.mark.parametrize("word", ["no_backend", "queue_full", "queue_timeout", "engine_failed"])
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_a_model_that_is_refused_for_want_of_a_place_is_replaced(
    tmp_path: Path, word: str, streamed: bool
) -> None:
    async with open_pair(tmp_path) as (house, big, small):
        house.scheduler.rejects["big"] = refusal(word)
        if streamed:
            told = await stream(house, model="big")
            assert {event["model"] for event in told if event != "[DONE]"} == {"small"}
            assert "word3" in text_of(told)
        else:
            async with house.post(ask(model="big")) as answer:
                assert answer.headers["x-forebay-model"] == "small"
                assert (await answer.json())["model"] == "small"
        assert not big.record.requests
        assert [seen.body["model"] for seen in small.record.requests] == ["small"]
        assert [submit.model for submit in house.scheduler.submits] == ["big", "small"]
        assert len({submit.ledger_id for submit in house.scheduler.submits}) == 1
        assert await row_of(house) == (*BY_SMALL, 1)
        assert len(house.scheduler.settles) == 1
        assert house.scheduler.cancels == []


async def test_a_model_that_no_backend_has_any_more_is_replaced(tmp_path: Path) -> None:
    async with open_pair(tmp_path, fallback(model="gone")) as (house, _, small):
        async with house.post(ask(model="gone")) as answer:
            assert (answer.status, (await answer.json())["model"]) == (200, "small")
        assert len(small.record.requests) == 1
        assert (await row_of(house))[:3] == ("OUTCOME_FINISHED", "gone", "small")


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_when_every_attempt_has_failed_another_model_is_asked_and_all_attempts_count(
    tmp_path: Path, streamed: bool
) -> None:
    async with open_pair(tmp_path) as (house, big, _):
        big.faults.add(ALWAYS)
        async with house.post(ask(model="big", stream=streamed)) as answer:
            assert answer.status == 200
            assert b"word3" in await answer.read()
            assert answer.headers["x-forebay-model"] == "small"
        assert answer.headers["x-forebay-attempts"] == "2"
        assert await row_of(house) == (*BY_SMALL, 2)
        assert house.metric('forebay_gateway_other_models_total{why="engine_failed"}') == 1


async def test_when_all_engines_of_a_model_are_busy_another_model_is_asked(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (house, big, _):
        big.faults.add(Fault(FaultKind.STATUS, status=503, times=None, message="server busy"))
        async with house.post(ask(model="big")) as answer:
            assert (answer.status, answer.headers["x-forebay-model"]) == (200, "small")
        assert await row_of(house) == (*BY_SMALL, 2)


async def test_after_the_first_byte_nobody_else_is_asked(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (house, big, small):
        big.faults.add(Fault(FaultKind.CUT_AFTER, chunks=2))
        told = await stream(house, model="big")
        assert told[-1]["error"]["code"] == "engine_failed"
        assert not small.record.requests
        assert (await row_of(house))[:3] == ("OUTCOME_FAILED", "big", "big")


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_a_prompt_that_is_too_long_goes_to_a_model_that_takes_more(tmp_path: Path, streamed: bool) -> None:
    big = FakeEngine(models=("big",), context_tokens=50, pace=QUICK)
    async with open_pair(tmp_path, fallback("same", "small"), big=big, others=("small", "same")) as (house, _, small):
        await house.put("b1", big.url, models=["big"], context_length=50)
        await house.put("b2", small.url, models=["small"], context_length=4096)
        await house.put("b3", small.url, models=["same"], context_length=50)
        await heard(house, fallback("same", "small"))
        messages = [{"role": "user", "content": "word " * 100}]
        async with house.post(ask(model="big", messages=messages, stream=streamed)) as answer:
            assert answer.status == 200
            assert answer.headers["x-forebay-model"] == "small"
            assert b"word3" in await answer.read()
        assert [seen.body["model"] for seen in small.record.requests] == ["small"]
        assert (await row_of(house))[:4] == BY_SMALL
        assert len(house.scheduler.cancels) == 1, "its slot went back, uncharged"
        assert [OUTCOME(settle.outcome) for settle in house.scheduler.settles] == ["OUTCOME_FINISHED"]


async def test_without_a_longer_context_a_prompt_that_is_too_long_stays_so(tmp_path: Path) -> None:
    big = FakeEngine(models=("big",), context_tokens=50)
    async with open_pair(tmp_path, big=big) as (house, _, small):
        await house.put("b2", small.url, models=["small"], context_length=None)
        await heard(house, fallback())
        async with house.post(ask(model="big", messages=[{"role": "user", "content": "word " * 100}])) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (400, "context_length_exceeded")
        assert answer.headers["x-forebay-model"] == "big"
        assert not small.record.requests


async def test_a_request_that_has_waited_for_long_enough_goes_to_another_model(tmp_path: Path) -> None:
    async with open_pair(tmp_path, fallback(after_ms=200)) as (house, big, small):
        house.scheduler.slots["b1"] = 0
        began = asyncio.get_running_loop().time()
        async with house.post(ask(model="big", stream=True)) as answer:
            assert b"word3" in await answer.read()
            assert answer.headers["x-forebay-model"] == "small"
        assert asyncio.get_running_loop().time() - began >= 0.2
        assert len(house.scheduler.cancels) == 1
        assert (len(big.record.requests), len(small.record.requests)) == (0, 1)
        assert not house.scheduler.queue
        assert {row.model: row.model_requested for row in await house.rows(1)} == {"small": "big"}
        assert house.metric('forebay_gateway_other_models_total{why="waited"}') == 1


async def test_one_that_waits_waits_on_when_nobody_else_can(tmp_path: Path) -> None:
    big = FakeEngine(models=("big",), slots=1, pace=Pace(tokens_per_s=60, answer_tokens=30))
    async with open_pair(tmp_path, fallback("nowhere", after_ms=50), big=big) as (house, _, _small):
        first = asyncio.create_task(stream(house, model="big"))
        await eventually(lambda: house.scheduler.held)
        assert "word29" in text_of(await stream(house, model="big"))
        await first
        assert house.scheduler.cancels == []


async def test_one_that_waited_goes_back_to_its_queue_when_the_others_refuse(tmp_path: Path) -> None:
    async with open_pair(tmp_path, fallback(after_ms=50)) as (house, _, small):
        house.scheduler.rejects["small"] = refusal("queue_full")
        house.scheduler.slots["b1"] = 0
        asking = asyncio.create_task(stream(house, model="big"))
        await eventually(lambda: [submit.model for submit in house.scheduler.submits] == ["big", "small", "big"])
        house.scheduler.slots["b1"] = 1
        assert {event["model"] for event in await asking if event != "[DONE]"} == {"big"}
        assert not small.record.requests
        assert len(house.scheduler.submits) == 3
        assert {row.model for row in await house.rows(1)} == {"big"}


async def test_a_grant_that_crosses_the_giving_up_is_not_taken_for_the_other_models(tmp_path: Path) -> None:
    """The scheduler grants the first model's slot in the moment in which it is given up."""
    async with open_pair(tmp_path, fallback(after_ms=300)) as (house, big, small):
        house.scheduler.slots["b1"] = 0
        asking = asyncio.create_task(stream(house, model="big"))
        await eventually(lambda: house.scheduler.queue)
        house.scheduler.is_silent = True  # what it says next comes with the answer to the cancel
        waiting = house.scheduler.queue[0].ledger_id
        house.scheduler.say(
            grants=[scheduler_pb2.Grant(ledger_id=waiting, backend_id="b1", lease=99, attempt=1, width=1)]
        )
        await eventually(lambda: house.scheduler.cancels)
        house.scheduler.is_silent = False
        assert {event["model"] for event in await asking if event != "[DONE]"} == {"small"}
        assert not big.record.requests
        assert len(small.record.requests) == 1


# --- which one --------------------------------------------------------------------------------------------------------


async def test_the_cheapest_for_this_request_goes_first(tmp_path: Path) -> None:
    order = fallback("costly", "cheap", order=admin_pb2.FALLBACK_ORDER_CHEAPEST)
    async with open_pair(tmp_path, others=("small", "costly", "cheap")) as (house, _, _small):
        prices = [
            admin_pb2.ModelPolicy(model="costly", prompt_micros=5, completion_micros=5),
            admin_pb2.ModelPolicy(model="cheap", prompt_micros=1, completion_micros=1),
        ]
        await heard(house, order, prices=prices)
        house.scheduler.rejects["big"] = refusal("queue_full")
        async with house.post(ask(model="big")) as answer:
            assert answer.headers["x-forebay-model"] == "cheap"


async def test_the_one_that_lately_began_soonest_goes_first_and_an_unknown_one_last(tmp_path: Path) -> None:
    order = fallback("unknown", "small", order=admin_pb2.FALLBACK_ORDER_SOONEST)
    async with open_pair(tmp_path, order, others=("small", "unknown")) as (house, _, _small):
        await stream(house, model="small")
        assert house.metric('forebay_gateway_first_token_seconds{model="small",pool="default"}') > 0
        house.scheduler.rejects["big"] = refusal("queue_full")
        async with house.post(ask(model="big")) as answer:
            assert answer.headers["x-forebay-model"] == "small"


async def test_each_is_asked_once_and_the_client_hears_why_the_first_did_not_answer(tmp_path: Path) -> None:
    loop = (fallback("small", "nowhere", "other"), fallback("big", model="small"), fallback("big", model="other"))
    async with open_pair(tmp_path, *loop, others=("small", "other")) as (house, *_):
        house.scheduler.reject_with = refusal("no_backend")
        house.scheduler.rejects["big"] = refusal("queue_full")
        async with house.post(ask(model="big")) as answer:
            error = (await answer.json())["error"]
        assert (answer.status, error["code"]) == (503, "queue_full")
        assert error["message"] == "Not now. Asked instead, and without success: small, other."
        assert answer.headers["retry-after-ms"] == "4000"
        assert answer.headers["x-forebay-model"] == "big"
        assert [submit.model for submit in house.scheduler.submits] == ["big", "small", "other"]
        (row,) = await house.rows(1)
        assert (OUTCOME(row.outcome), row.model, row.reason) == ("OUTCOME_REFUSED", "big", "queue_full")


async def test_a_limit_of_the_clients_own_is_no_reason_to_ask_another(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (house, *_):
        house.scheduler.rejects["big"] = refusal("rate_limited")
        async with house.post(ask(model="big")) as answer:
            assert answer.status == 429
        assert [submit.model for submit in house.scheduler.submits] == ["big"]


PICTURE = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        ],
    }
]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]


@pytest.mark.parametrize(
    ("fields", "can", "answers"),
    [
        ({"messages": PICTURE}, ("completion",), "other"),
        ({"messages": PICTURE}, ("completion", "vision"), "blind"),
        ({"messages": PICTURE}, (), "blind"),  # it does not say what it can
        ({"tools": TOOLS}, ("completion",), "other"),
        ({"tools": TOOLS}, ("completion", "tools"), "blind"),
        ({}, ("completion",), "blind"),
    ],
)
async def test_a_request_is_not_sent_to_a_model_that_is_known_not_to_be_able(
    tmp_path: Path, fields: dict[str, Any], can: tuple[str, ...], answers: str
) -> None:
    chain = fallback("blind", "other")
    async with open_pair(tmp_path, chain, others=("small", "blind", "other")) as (house, _, small):
        await house.put("b2", small.url, models=["small", "other"])
        await house.put("b3", small.url, models=["blind"], kind=types_pb2.ENGINE_KIND_OLLAMA, capabilities=can)
        house.scheduler.serves |= {"b2": {"small", "other"}, "b3": {"blind"}}
        house.scheduler.slots["b3"] = 4
        await heard(house, chain)
        house.scheduler.rejects["big"] = refusal("queue_full")
        async with house.post(ask(model="big", **fields)) as answer:
            assert answer.headers["x-forebay-model"] == answers


async def test_a_pdf_is_not_sent_to_a_model_whose_engines_read_none(tmp_path: Path) -> None:
    chain = fallback("blind", "other")
    pdf = {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0xLjQK"}
    async with open_pair(tmp_path, chain, others=("small", "blind", "other")) as (house, big, small):
        await house.put("b1", big.url, models=["big"], kind=types_pb2.ENGINE_KIND_OPENAI)
        await house.put("b2", small.url, models=["small", "other"], kind=types_pb2.ENGINE_KIND_OPENAI)
        await house.put("b3", small.url, models=["blind"], kind=types_pb2.ENGINE_KIND_VLLM)
        house.scheduler.serves |= {"b2": {"small", "other"}, "b3": {"blind"}}
        house.scheduler.slots["b3"] = 4
        await heard(house, chain)
        house.scheduler.rejects["big"] = refusal("queue_full")
        messages = [{"role": "user", "content": [{"type": "file", "file": pdf}]}]
        async with house.post(ask(model="big", messages=messages)) as answer:
            assert answer.headers["x-forebay-model"] == "other"


async def test_a_model_whose_backends_are_down_or_whose_context_is_far_too_small_is_passed_over(tmp_path: Path) -> None:
    chain = fallback("down", "tiny", "small")
    async with open_pair(tmp_path, chain, others=("small", "down", "tiny")) as (house, _, small):
        await house.put("b2", small.url, models=["small"])
        await house.put("b3", small.url, models=["down"], healthy=False)
        await house.put("b4", small.url, models=["tiny"], context_length=8)
        await heard(house, chain)
        house.scheduler.rejects["big"] = refusal("queue_full")
        async with house.post(ask(model="big", messages=[{"role": "user", "content": "word " * 100}])) as answer:
            assert answer.headers["x-forebay-model"] == "small"
        assert [submit.model for submit in house.scheduler.submits] == ["big", "small"]


@pytest.mark.parametrize(
    ("kind", "told", "capability", "is_lacking"),
    [
        (EngineKind.OLLAMA, ("completion",), "tools", True),
        (EngineKind.OLLAMA, ("completion", "tools"), "tools", False),
        (EngineKind.OLLAMA, (), "tools", False),
        (EngineKind.LLAMACPP, ("completion",), "tools", False),  # it never says
        (EngineKind.LLAMACPP, ("completion",), "vision", True),
        (EngineKind.LLAMACPP, ("completion", "multimodal"), "vision", False),
        (EngineKind.GEMINI, ("chat",), "vision", False),
        (EngineKind.VLLM, ("chat",), "tools", False),
    ],
)
def test_what_a_model_cannot_do_is_known_where_its_engine_would_say_so(
    kind: EngineKind, told: tuple[str, ...], capability: str, is_lacking: bool
) -> None:
    fleet = Fleet()
    able = Backend("b1", "b1", "http://a", models={"m": ModelOnBackend("m", capabilities=(capability,))})
    fleet.replace_all([able, Backend("b2", "b2", "http://b", kind, models={"m": ModelOnBackend("m", None, told)})])
    assert fleet.lacks("m", "default", capability) is is_lacking


async def test_what_a_request_needs_is_known_though_it_is_put_away_while_it_waits(tmp_path: Path) -> None:
    big = FakeEngine(models=("big",), slots=1, pace=SLOW)
    chain = fallback("blind", "small", after_ms=400)
    async with open_pair(tmp_path, chain, big=big, others=("small", "blind")) as (house, _, small):
        await house.put("b2", small.url, models=["small"], context_length=None)
        await house.put("b3", small.url, models=["blind"], kind=types_pb2.ENGINE_KIND_OLLAMA, capabilities=["chat"])
        await heard(house, chain)
        first = asyncio.create_task(stream(house, model="big"))
        await eventually(lambda: house.scheduler.held)
        long = ask(model="big", stream=True, messages=PICTURE, padding="x" * 100_000)
        async with house.post(long) as answer:
            assert answer.headers["x-forebay-model"] == "small"
            assert answer.status == 200
        first.cancel()


async def test_a_slot_that_is_free_before_a_given_up_body_is_back_is_not_granted_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is settled under an id is over for good, and the other model is asked for under the same one."""
    big = FakeEngine(models=("big",), slots=1, pace=SLOW)
    at_rest = HeldBody.at_rest
    async with open_pair(tmp_path, fallback(after_ms=100), big=big) as (house, _, small):
        first = asyncio.create_task(stream(house, model="big"))
        await eventually(lambda: house.scheduler.held)

        @asynccontextmanager
        async def slowly(body: HeldBody, request: Any) -> AsyncIterator[None]:
            try:
                async with at_rest(body, request):
                    yield
            except HasWaited:
                first.cancel()
                await eventually(lambda: not house.scheduler.held)
                await asyncio.sleep(0.2)
                raise

        monkeypatch.setattr(HeldBody, "at_rest", slowly)
        told = await stream(house, model="big")
        assert {event["model"] for event in told if event != "[DONE]"} == {"small"}
        (cancelled,) = house.scheduler.cancels
        await eventually(lambda: cancelled in [settle.ledger_id for settle in house.scheduler.settles])
        ends = [OUTCOME(settle.outcome) for settle in house.scheduler.settles if settle.ledger_id == cancelled]
        assert ends == ["OUTCOME_FINISHED"]
        assert len(small.record.requests) == 1


# --- who may, and who does not want it ----------------------------------------------------------------------------------


async def test_a_key_that_may_use_the_model_gets_what_is_asked_instead_of_it(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (house, *_):
        house.key = house.admin.add_key(allowed_models=["big"])
        await asyncio.sleep(0.1)
        house.scheduler.rejects["big"] = refusal("queue_full")
        async with house.post(ask(model="big")) as answer:
            assert (answer.status, answer.headers["x-forebay-model"]) == (200, "small")
        async with house.post(ask(model="small")) as answer:
            assert answer.status == 403


async def test_a_client_can_forbid_it_for_a_request(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (house, *_):
        house.scheduler.rejects["big"] = refusal("queue_full")
        for word, status in (("off", 503), (" OFF", 503), ("on", 200), ("maybe", 400)):
            headers = {**house.headers, "x-forebay-fallback": word}
            async with house.post(ask(model="big"), headers=headers) as answer:
                assert answer.status == status, word
        headers = {**house.headers, "x-forebay-fallback": "off"}
        async with house.post(ask(model="big", models=["small"]), headers=headers) as answer:
            assert answer.status == 503


async def test_a_client_can_bring_models_of_its_own(tmp_path: Path) -> None:
    async with open_pair(tmp_path, fallback("other"), others=("small", "other")) as (house, _, small):
        house.scheduler.rejects["big"] = refusal("queue_full")
        for body in (
            ask(model="big", models=["nowhere", "small"], route="fallback"),
            ask(model="big", models=["big", "small"]),
            {**ask(), "model": None, "models": ["big", "small"]},
        ):
            async with house.post(body) as answer:
                assert (answer.status, (await answer.json())["model"]) == (200, "small"), body
        assert all("models" not in seen.body and "route" not in seen.body for seen in small.record.requests)
        async with house.post(ask(model="small", models=["big"])) as answer:
            assert (await answer.json())["model"] == "small", "the first one answers when it can"
        completion = {"model": "big", "models": ["small"], "prompt": "Say some words"}
        async with house.client.post(f"{house.url}/v1/completions", json=completion, headers=house.headers) as answer:
            assert (answer.status, (await answer.json())["model"]) == (200, "small")


@pytest.mark.parametrize("models", ["small", [1], [""], ["m"] * 17, {"a": 1}])
async def test_a_list_that_is_none_is_refused(tmp_path: Path, models: Any) -> None:
    async with open_pair(tmp_path) as (house, *_), house.post(ask(model="big", models=models)) as answer:
        assert (answer.status, (await answer.json())["error"]["param"]) in ((400, "models"), (400, "model"))


async def test_models_that_a_client_brings_are_checked_each(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (house, *_):
        house.key = house.admin.add_key(allowed_models=["big"])
        await asyncio.sleep(0.1)
        async with house.post(ask(model="big", models=["small"])) as answer:
            assert answer.status == 403
            assert "does not allow the model small" in (await answer.json())["error"]["message"]
        assert not house.scheduler.submits


# --- rules, names, dialects -------------------------------------------------------------------------------------------


async def test_each_model_has_its_own_rules_and_aliases_are_resolved(tmp_path: Path) -> None:
    def of(model: str, seed: int) -> admin_pb2.ModelRule:
        return admin_pb2.ModelRule(
            scope=admin_pb2.ModelRuleScope(model=model), pinned={"seed": str(seed)}, max_output_tokens=seed
        )

    big_rule = of("big", 1)
    big_rule.defaults["temperature"] = "0.5"
    chain = fallback("plain", "nick", model="best")
    aliases = [
        admin_pb2.ModelAlias(alias="best", model="big"),
        admin_pb2.ModelAlias(alias="nick", model="small"),
    ]
    async with open_pair(tmp_path, others=("small", "plain")) as (house, _, small):
        await heard(house, chain, rules=[big_rule, of("small", 2)], aliases=aliases)
        house.scheduler.rejects["big"] = refusal("queue_full")
        house.scheduler.rejects["plain"] = refusal("queue_full")
        async with house.post(ask(model="best")) as answer:
            assert (answer.headers["x-forebay-model"], (await answer.json())["model"]) == ("small", "nick")
        sent = small.record.requests[-1].body
        assert (sent["model"], sent["seed"], sent["max_tokens"], "temperature" in sent) == ("small", 2, 2, False)
        assert [submit.max_output_tokens for submit in house.scheduler.submits] == [1, 0, 2]


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
@pytest.mark.parametrize("kind", [types_pb2.ENGINE_KIND_VLLM, types_pb2.ENGINE_KIND_OLLAMA], ids=["vllm", "ollama"])
async def test_ollamas_clients_hear_which_model_answered(tmp_path: Path, streamed: bool, kind: Any) -> None:
    async with open_pair(tmp_path) as (house, _, small):
        await house.put("b2", small.url, models=["small"], kind=kind)
        rule = admin_pb2.ModelRule(scope=admin_pb2.ModelRuleScope(model="big"), pinned={"seed": "1"})
        await heard(house, fallback(), rules=[rule])
        house.scheduler.rejects["big"] = refusal("queue_full")
        client = ollama.AsyncClient(host=f"{house.url}/k/{house.key}")
        messages = ask()["messages"]
        if streamed:
            models = {part.model async for part in await client.chat("big", messages, stream=True)}
        else:
            models = {(await client.chat("big", messages)).model, (await client.generate("big", "Hi")).model}
        assert models == {"small"}
        sent = small.record.requests[-1].body
        assert (sent["model"], "seed" in sent or "seed" in sent.get("options", {})) == ("small", False)
        await client._client.aclose()


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_anthropics_clients_hear_which_model_answered(tmp_path: Path, streamed: bool) -> None:
    async with (
        open_pair(tmp_path) as (house, *_),
        AsyncAnthropic(base_url=house.url, api_key=str(house.key), max_retries=0) as client,
    ):
        house.scheduler.rejects["big"] = refusal("queue_full")
        messages: Any = ask()["messages"]
        told: Any
        if streamed:
            async with client.messages.stream(model="big", messages=messages, max_tokens=50) as answer:
                told = await answer.get_final_message()
        else:
            told = await client.messages.create(model="big", messages=messages, max_tokens=50)
        assert told.model == "small"


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_responses_name_the_model_that_answered(tmp_path: Path, streamed: bool) -> None:
    async with (
        open_pair(tmp_path) as (house, *_),
        AsyncOpenAI(base_url=f"{house.url}/v1", api_key=str(house.key), max_retries=0) as client,
    ):
        house.scheduler.rejects["big"] = refusal("queue_full")
        if streamed:
            events = [event async for event in await client.responses.create(model="big", input="Hi", stream=True)]
            told: Any = events[-1]
            assert told.response.model == "small"
        else:
            assert (await client.responses.create(model="big", input="Hi")).model == "small"


async def test_a_client_that_goes_while_another_model_is_asked_leaves_nothing_behind(tmp_path: Path) -> None:
    big = FakeEngine(models=("big",), slots=1, pace=SLOW)
    async with open_pair(tmp_path, fallback(after_ms=100), big=big) as (house, _, _small):
        house.scheduler.slots["b2"] = 0
        first = asyncio.create_task(stream(house, model="big"))
        await eventually(lambda: house.scheduler.held)
        second = asyncio.create_task(stream(house, model="big"))
        await eventually(lambda: [submit.model for submit in house.scheduler.queue] == ["small"])
        second.cancel()
        await eventually(lambda: not house.scheduler.queue)
        assert len(house.scheduler.cancels) == 2
        assert "word39" in text_of(await first)
        rows = {OUTCOME(row.outcome): row.model for row in await house.rows(2)}
        assert rows == {"OUTCOME_FINISHED": "big", "OUTCOME_CANCELLED": "small"}
