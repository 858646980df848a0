"""A conversation that is too long for its model is made shorter where its client allows that; and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

from forebay.wire.v1 import admin_pb2
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.gateway.house import MODEL, OUTCOME, House, open_house
from tests.gateway.test_fallbacks import fallback, heard, open_pair

QUICK = Pace(tokens_per_s=2000, ttft_s=0.0, answer_tokens=4)
HI = "word0 word1 word2 word3"
LONG: Any = [{"role": role, "content": f"{n} " + "word " * 20} for n in range(6) for role in ("user", "assistant")] + [
    {"role": "user", "content": "And now?"}
]


def sdk_of(house: House) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=str(house.key), max_retries=0)


def told_to(engine: FakeEngine) -> list[str]:
    return asked_of(engine)[-1]


@pytest.mark.parametrize("streams", [False, True], ids=["plain", "streamed"])
async def test_the_oldest_turns_are_left_out_on_the_same_slot(tmp_path: Path, streams: bool) -> None:
    engine = FakeEngine(pace=QUICK, context_tokens=100)
    async with open_house(tmp_path, engine) as house, sdk_of(house) as sdk:
        asked: Any = {"model": MODEL, "instructions": "Be brief.", "input": LONG, "truncation": "auto"}
        if streams:
            async with sdk.responses.stream(**asked) as stream:
                answer: Any = await stream.get_final_response()
        else:
            answer = await sdk.responses.create(**asked)
        assert (answer.output_text, answer.truncation) == (HI, "auto")
        told = told_to(engine)
        assert (told[0], told[-1]) == ("Be brief.", "And now?")
        assert told[1].startswith("5 "), "the newest of the others stayed"
        assert house.scheduler.nacks == []
        (row,) = await house.rows(1)
        assert (OUTCOME(row.outcome), row.attempts) == ("OUTCOME_FINISHED", 1)
        kept = [item async for item in await sdk.responses.input_items.list(answer.id)]
        assert len(kept) == len(LONG), "what is kept is what was sent"


async def test_without_leave_it_is_refused(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(context_tokens=100)) as house, sdk_of(house) as sdk:
        for asked in ({}, {"truncation": "disabled"}):
            with pytest.raises(openai.BadRequestError) as error:
                await sdk.responses.create(model=MODEL, input=LONG, **asked)  # type: ignore[call-overload]
            assert (error.value.code, error.value.param) == ("context_length_exceeded", "input")


async def test_what_must_stay_may_be_too_long_by_itself(tmp_path: Path) -> None:
    engine = FakeEngine(context_tokens=100)
    async with open_house(tmp_path, engine) as house, sdk_of(house) as sdk:
        long: Any = [*LONG, {"role": "user", "content": "word " * 200}]
        with pytest.raises(openai.BadRequestError, match="context"):
            await sdk.responses.create(model=MODEL, input=long, truncation="auto")
        assert len(engine.record.requests) == 5
        assert len(await house.rows(1)) == 1


async def test_an_operators_cap_makes_it_shorter_before_it_is_asked(tmp_path: Path) -> None:
    big = FakeEngine(models=("big",), flavour=Flavour.VLLM, pace=QUICK)
    async with open_pair(tmp_path, big=big) as (house, *_), sdk_of(house) as sdk:
        scope = admin_pb2.ModelRuleScope(everyone=True)
        await heard(house, rules=[admin_pb2.ModelRule(scope=scope, max_context_tokens=100)])
        with pytest.raises(openai.BadRequestError):
            await sdk.responses.create(model="big", input=LONG)
        assert not asked_of(big)
        answer = await sdk.responses.create(model="big", input=LONG, truncation="auto")
        assert answer.output_text == HI
        (told,) = asked_of(big)
        assert told[-1] == "And now?"
        assert len(told) < len(LONG)


async def test_a_model_that_takes_all_of_it_is_asked_instead(tmp_path: Path) -> None:
    big = FakeEngine(models=("big",), context_tokens=100, pace=QUICK)
    async with open_pair(tmp_path, fallback("small"), big=big) as (house, _, small), sdk_of(house) as sdk:
        await house.put("b1", big.url, models=["big"], context_length=100)
        await house.put("b2", small.url, models=["small"], context_length=4096)
        await heard(house, fallback("small"))
        answer = await sdk.responses.create(model="big", input=LONG, truncation="auto")
        assert (answer.output_text, answer.model) == (HI, "small")
        (told,) = asked_of(small)
        assert len(told) == len(LONG)


def asked_of(engine: FakeEngine) -> list[list[str]]:
    chats = [seen.body for seen in engine.record.requests if seen.path.endswith("/chat/completions")]
    return [[message["content"] for message in body["messages"]] for body in chats]
