"""Chat completions that are not streamed: passed on as they are, or folded from a stream where the engine needs it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from forebay.wire.v1 import types_pb2
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.gateway.house import OUTCOME, ask, open_house

QUICK = Pace(tokens_per_s=1000, answer_tokens=6)


@pytest.mark.parametrize("flavour", [Flavour.VLLM, Flavour.LLAMA_CPP])
async def test_a_plain_answer_has_its_text_and_its_true_usage(tmp_path: Path, flavour: Flavour) -> None:
    engine = FakeEngine(flavour=flavour, pace=QUICK)
    async with open_house(tmp_path, engine) as house:
        async with house.post(ask(n=2)) as answer:
            told = await answer.json()
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert told["object"] == "chat.completion"
        assert told["model"] == "fake-model"
        assert [choice["message"]["content"] for choice in told["choices"]] == [
            "word0 word1 word2 word3 word4 word5"
        ] * 2
        assert [choice["finish_reason"] for choice in told["choices"]] == ["stop", "stop"]
        assert told["usage"]["completion_tokens"] == 12
        (row,) = await house.rows(1)
        assert OUTCOME(row.outcome) == "OUTCOME_FINISHED"
        assert (row.usage.completion_tokens, row.usage.source) == (12, types_pb2.USAGE_SOURCE_ENGINE)
        assert (row.width, row.stream, row.http_status) == (2, False, 200)
        assert engine.record.requests[0].streamed is (flavour is Flavour.LLAMA_CPP)


async def test_unknown_fields_reach_the_engine_untouched(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    async with open_house(tmp_path, engine) as house:
        body = ask(temperature=0.25, some_new_field={"deep": [1, 2.5, None]})
        async with house.post(body) as answer:
            assert answer.status == 200
        assert engine.record.requests[0].body == body
        async with house.post({**body, "stream": True, "stream_options": {"extra": 1}}) as answer:
            await answer.read()
        assert engine.record.requests[1].body == {
            **body,
            "stream": True,
            "stream_options": {"extra": 1, "include_usage": True},
        }


@pytest.mark.parametrize("flavour", [Flavour.VLLM, Flavour.LLAMA_CPP])
@pytest.mark.parametrize(
    "fault",
    [Fault(FaultKind.CUT_AFTER, chunks=2), Fault(FaultKind.MALFORMED_SSE, chunks=2)],
    ids=["cut", "garbage"],
)
async def test_another_backend_takes_over_since_the_client_has_seen_nothing(
    tmp_path: Path, flavour: Flavour, fault: Fault
) -> None:
    broken, sound = FakeEngine(flavour=flavour, pace=QUICK), FakeEngine(flavour=flavour, pace=QUICK)
    broken.faults.add(fault)
    async with open_house(tmp_path, broken, sound) as house:
        async with house.post(ask()) as answer:
            told = await answer.json()
        assert answer.status == 200
        assert told["choices"][0]["message"]["content"].endswith("word5")
        assert answer.headers["x-forebay-attempts"] == "2"
        (row,) = await house.rows(1)
        assert (row.attempts, row.backend_id, row.usage.completion_tokens) == (2, "b2", 6)


async def test_a_plain_answer_without_usage_is_estimated(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    engine.faults.add(Fault(FaultKind.NO_USAGE))
    async with open_house(tmp_path, engine) as house:
        async with house.post(ask()) as answer:
            assert answer.status == 200
        (row,) = await house.rows(1)
        assert row.usage.source == types_pb2.USAGE_SOURCE_ESTIMATED
        assert row.usage.completion_tokens > 0


async def test_the_slots_of_a_backend_are_never_exceeded(tmp_path: Path) -> None:
    engine = FakeEngine(slots=4, pace=Pace(tokens_per_s=200, answer_tokens=4))
    async with open_house(tmp_path, engine) as house:

        async def one(number: int) -> int:
            async with house.post(ask(n=(1, 1, 2, 3)[number % 4], stream=number % 2 == 0)) as answer:
                await answer.read()
                return int(answer.status)

        assert set(await asyncio.gather(*(one(number) for number in range(32)))) == {200}
        assert engine.slots.peak_width == 4
        assert len(await house.rows(32)) == 32
