"""A request that its engine has lost goes elsewhere; one that it works on or loads for is waited for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from forebay.wire.v1 import scheduler_pb2, types_pb2
from forebay_gateway.engines.activity import Activity
from forebay_gateway.silence import NOBODY, Silent, Verdict, judge_look
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.gateway.house import OUTCOME, House, ask, eventually, open_house
from tests.gateway.sse_text import stream, text_of

QUICK = Pace(tokens_per_s=1000, answer_tokens=4)
LOSE = Fault(FaultKind.SLOW_HEADERS, seconds=60)
"""It takes the request and forgets it: no slot is held, and no answer comes."""
LOOK_S = 0.3

ONE, TWO = Silent(b"one", 1.0), Silent(b"two", 2.0)


def test_two_idle_looks_in_a_row_are_needed() -> None:
    first = judge_look(Activity.IDLE, frozenset({ONE}), NOBODY)
    assert first == Verdict(lost=NOBODY, suspects=frozenset({ONE}))
    second = judge_look(Activity.IDLE, frozenset({ONE, TWO}), first.suspects)
    assert second == Verdict(lost=frozenset({ONE}), suspects=frozenset({TWO}))


@pytest.mark.parametrize("activity", [Activity.BUSY, Activity.UNTOLD])
def test_a_look_that_shows_work_or_nothing_begins_anew(activity: Activity) -> None:
    verdict = judge_look(activity, frozenset({ONE}), frozenset({ONE}))
    assert (verdict.lost, verdict.suspects) == (NOBODY, NOBODY)


def test_what_was_sent_again_in_between_is_not_the_same() -> None:
    again = Silent(ONE.ledger_id, 9.0)
    assert judge_look(Activity.IDLE, frozenset({again}), frozenset({ONE})).lost == NOBODY


def looks(engine: FakeEngine) -> int:
    return sum(engine.record.probes[path] for path in ("/slots", "/metrics", "/api/ps"))


async def put(house: House, engine: FakeEngine, flavour: Flavour) -> None:
    if flavour is Flavour.OLLAMA:
        await house.put("b1", engine.url, kind=types_pb2.ENGINE_KIND_OLLAMA)


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
@pytest.mark.parametrize("flavour", [Flavour.LLAMA_CPP, Flavour.VLLM, Flavour.OLLAMA])
async def test_a_request_that_its_engine_has_lost_goes_elsewhere(
    tmp_path: Path, flavour: Flavour, streamed: bool
) -> None:
    # An Ollama that has nothing in memory; it lost the request before it looked for the model.
    engine = FakeEngine(flavour=flavour, pace=QUICK, models=() if flavour is Flavour.OLLAMA else ("fake-model",))
    engine.faults.add(LOSE)
    async with open_house(tmp_path, engine, FakeEngine(pace=QUICK), silent_look_s=LOOK_S) as house:
        await put(house, engine, flavour)
        async with house.post(ask(stream=streamed)) as answer:
            assert answer.headers["x-forebay-attempts"] == "2"
            assert b"word3" in await answer.read()
        assert looks(engine) >= 2
        (nack,) = house.scheduler.nacks
        assert nack.nack_class == scheduler_pb2.NACK_CLASS_UNREACHABLE
        (row,) = await house.rows(1)
        assert (OUTCOME(row.outcome), row.attempts, row.backend_id) == ("OUTCOME_FINISHED", 2, "b2")


async def test_when_there_is_no_other_the_client_hears_why(tmp_path: Path) -> None:
    engine = FakeEngine(flavour=Flavour.VLLM)
    engine.faults.add(LOSE)
    async with open_house(tmp_path, engine, silent_look_s=LOOK_S) as house, house.post(ask()) as answer:
        assert answer.status == 502
        assert "neither works nor loads" in (await answer.json())["error"]["message"]


async def wait_through_looks(house: House, engine: FakeEngine, wanted: int = 3) -> dict[str, Any]:
    """Gives the answer to a request that has to wait for longer than the engine would be waited for when idle."""
    asking = asyncio.create_task(stream(house))
    await eventually(lambda: looks(engine) + engine.record.probes["/health"] >= wanted, "it was not looked at")
    assert not asking.done()
    assert not house.scheduler.nacks
    return {"text": text_of(await asyncio.wait_for(asking, 30))}


@pytest.mark.parametrize("flavour", [Flavour.LLAMA_CPP, Flavour.VLLM])
async def test_an_engine_that_reads_a_long_prompt_is_waited_for(tmp_path: Path, flavour: Flavour) -> None:
    engine = FakeEngine(flavour=flavour, pace=Pace(tokens_per_s=1000, answer_tokens=4, ttft_s=1.5))
    async with open_house(tmp_path, engine, FakeEngine(pace=QUICK), silent_look_s=LOOK_S) as house:
        assert "word3" in (await wait_through_looks(house, engine))["text"]
        assert not house.scheduler.nacks


async def test_an_engine_that_loads_its_model_is_waited_for(tmp_path: Path) -> None:
    engine = FakeEngine(flavour=Flavour.LLAMA_CPP, pace=QUICK)
    engine.faults.add(Fault(FaultKind.UNHEALTHY, times=None))
    engine.faults.add(Fault(FaultKind.SLOW_HEADERS, seconds=1.5))
    async with open_house(tmp_path, engine, FakeEngine(pace=QUICK), silent_look_s=LOOK_S) as house:
        assert "word3" in (await wait_through_looks(house, engine))["text"]
        assert not house.scheduler.nacks


async def test_an_ollama_that_has_or_loads_a_model_is_waited_for(tmp_path: Path) -> None:
    engine = FakeEngine(flavour=Flavour.OLLAMA, pace=QUICK)
    engine.faults.add(Fault(FaultKind.SLOW_HEADERS, seconds=1.5))
    async with open_house(tmp_path, engine, FakeEngine(pace=QUICK), silent_look_s=LOOK_S) as house:
        await put(house, engine, Flavour.OLLAMA)
        assert "word3" in (await wait_through_looks(house, engine))["text"]
        assert not house.scheduler.nacks


async def test_an_engine_whose_pages_fail_is_waited_for(tmp_path: Path) -> None:
    engine = FakeEngine(flavour=Flavour.VLLM, pace=QUICK)
    engine.faults.add(Fault(FaultKind.SLOW_HEADERS, seconds=1.5))
    engine.faults.add(Fault(FaultKind.STATUS, status=500, on="/metrics", times=None))
    async with open_house(tmp_path, engine, FakeEngine(pace=QUICK), silent_look_s=LOOK_S) as house:
        assert "word3" in (await wait_through_looks(house, engine))["text"]
        assert not house.scheduler.nacks


async def test_however_many_wait_there_is_one_look_at_a_time(tmp_path: Path) -> None:
    engine = FakeEngine(flavour=Flavour.VLLM, slots=20)
    engine.faults.add(Fault(FaultKind.SLOW_HEADERS, seconds=60, times=20))
    async with open_house(tmp_path, engine, FakeEngine(pace=QUICK, slots=20), silent_look_s=LOOK_S) as house:
        answers = await asyncio.gather(*(stream(house) for _ in range(20)))
        assert all("word3" in text_of(answer) for answer in answers)
        assert looks(engine) <= 4
        assert len(house.scheduler.nacks) == 20
