"""Until the first byte of an answer another backend may take over; every attempt that failed is told to the scheduler."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from forebay.wire.v1 import scheduler_pb2, types_pb2
from forebay_gateway.engines.errors import as_sentence
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_orders import Pace
from tests.gateway.house import OUTCOME, ask, eventually, open_house
from tests.gateway.sse_text import stream, text_of

QUICK = Pace(tokens_per_s=1000, answer_tokens=4)
CLASS = scheduler_pb2.NackClass.Name


@pytest.mark.parametrize(
    ("fault", "blame"),
    [
        (Fault(FaultKind.CLOSE_BEFORE_HEADERS), "UNREACHABLE"),
        (Fault(FaultKind.CLOSE_BEFORE_HEADERS, reset=True), "UNREACHABLE"),
        (Fault(FaultKind.STATUS, status=500), "FAILED"),
        (Fault(FaultKind.STATUS, status=401), "FAILED"),
        (Fault(FaultKind.STATUS, status=503), "BUSY"),
        (Fault(FaultKind.STATUS, status=429, retry_after_s=7), "BUSY"),
        (Fault(FaultKind.CUT_AFTER, chunks=0), "UNREACHABLE"),
        (Fault(FaultKind.ERROR_EVENT_AFTER, chunks=0), "FAILED"),
    ],
    ids=["closed", "reset", "500", "401", "503", "429", "cut-before-first", "error-before-first"],
)
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_another_backend_takes_over(tmp_path: Path, fault: Fault, blame: str, streamed: bool) -> None:
    broken = FakeEngine(pace=QUICK)
    broken.faults.add(fault)
    async with open_house(tmp_path, broken, FakeEngine(pace=QUICK)) as house:
        async with house.post(ask(stream=streamed)) as answer:
            assert answer.status == 200
            assert b"word3" in await answer.read()
        if fault.kind is FaultKind.ERROR_EVENT_AFTER and not streamed:
            return  # a fault of streams only
        assert answer.headers["x-forebay-attempts"] == "2"
        (nack,) = house.scheduler.nacks
        assert CLASS(nack.nack_class) == f"NACK_CLASS_{blame}"
        assert nack.backend_id == "b1"
        assert nack.retry_after_ms == (7000 if fault.retry_after_s else 0)
        (row,) = await house.rows(1)
        assert (OUTCOME(row.outcome), row.attempts, row.backend_id) == ("OUTCOME_FINISHED", 2, "b2")
        assert [(s.backend_id, OUTCOME(s.outcome)) for s in house.scheduler.settles] == [("b2", "OUTCOME_FINISHED")]


async def test_a_backend_that_does_not_listen_is_unreachable(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK), FakeEngine(pace=QUICK)) as house:
        await house.put("b1", "http://127.0.0.1:9")  # the discard port, where nobody listens
        await asyncio.sleep(0.1)
        assert "word3" in text_of(await stream(house))
        (nack,) = house.scheduler.nacks
        assert CLASS(nack.nack_class) == "NACK_CLASS_UNREACHABLE"


async def test_a_backend_that_this_gateway_does_not_know_is_given_back(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        house.scheduler.slots = {"b-new": 1, **house.scheduler.slots}
        assert "word3" in text_of(await stream(house))
        (nack,) = house.scheduler.nacks
        assert CLASS(nack.nack_class) == "NACK_CLASS_UNKNOWN_BACKEND"


async def test_when_every_backend_fails_the_client_is_told_what_the_last_one_said(tmp_path: Path) -> None:
    one, two = FakeEngine(), FakeEngine()
    for engine in (one, two):
        engine.faults.add(Fault(FaultKind.STATUS, status=500, message="CUDA out of memory"))
    async with open_house(tmp_path, one, two) as house:
        async with house.post(ask()) as answer:
            told = (await answer.json())["error"]
        assert answer.status == 502
        assert answer.headers["x-forebay-reason"] == "engine_failed"
        assert answer.headers["x-forebay-attempts"] == "2"
        assert "retry-after" in answer.headers
        assert told["code"] == "engine_failed"
        assert "CUDA out of memory" in told["message"]
        (row,) = await house.rows(1)
        assert (OUTCOME(row.outcome), row.reason, row.http_status, row.attempts) == (
            "OUTCOME_FAILED",
            "engine_failed",
            502,
            2,
        )


async def test_a_refusal_of_the_engine_is_passed_on_and_nobody_else_is_asked(tmp_path: Path) -> None:
    engine = FakeEngine(context_tokens=50)
    async with open_house(tmp_path, engine, FakeEngine()) as house:
        async with house.post(ask(messages=[{"role": "user", "content": "word " * 100}])) as answer:
            told = (await answer.json())["error"]
        assert answer.status == 400
        assert told["code"] == "context_length_exceeded"
        assert answer.headers["x-forebay-reason"] == "context_too_long"
        engine.faults.add(Fault(FaultKind.STATUS, status=422, message="temperature must be below 2"))
        async with house.post(ask()) as answer:
            told = (await answer.json())["error"]
        assert answer.status == 422
        assert "temperature must be below 2" in told["message"]
        assert house.scheduler.nacks == []
        rows = await house.rows(2)
        assert [row.reason for row in rows] == ["context_too_long", "engine_refused"]


@pytest.mark.parametrize(
    ("path", "prompt"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "word " * 100}]}),
        ("/v1/completions", {"prompt": "word " * 100}),
        ("/v1/responses", {"input": "word " * 100, "store": False}),
    ],
)
async def test_a_prompt_that_is_too_long_is_told_by_its_own_field(
    tmp_path: Path, path: str, prompt: dict[str, object]
) -> None:
    async with open_house(tmp_path, FakeEngine(context_tokens=50)) as house:
        body = {"model": "fake-model", **prompt}
        async with house.client.post(f"{house.url}{path}", json=body, headers=house.headers) as answer:
            told = (await answer.json())["error"]
        assert (told["code"], told["param"]) == ("context_length_exceeded", next(iter(prompt)))


async def test_an_idle_connection_that_the_engine_has_closed_is_no_failure_of_the_engine(tmp_path: Path) -> None:
    """The engine drops its idle connections in the same moment in which the next request takes one."""
    engine = FakeEngine(pace=QUICK)
    async with open_house(tmp_path, engine) as house:
        await stream(house)
        engine.faults.add(Fault(FaultKind.CLOSE_BEFORE_HEADERS))
        assert "word3" in text_of(await stream(house))
        assert house.scheduler.nacks == []
        assert len(engine.record.requests) == 3


async def test_an_engine_that_refuses_to_be_asked_for_usage_is_asked_without(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    engine.faults.add(Fault(FaultKind.STATUS, status=400, message="Unrecognized request argument: stream_options"))
    async with open_house(tmp_path, engine) as house:
        assert "word3" in text_of(await stream(house))
        assert "word3" in text_of(await stream(house))
        assert ["stream_options" in seen.body for seen in engine.record.requests] == [True, False, False]
        assert [row.usage.source for row in await house.rows(2)] == [types_pb2.USAGE_SOURCE_COUNTED] * 2


async def test_a_client_that_was_told_of_a_failure_in_its_stream_can_ask_again_on_the_same_connection(
    tmp_path: Path,
) -> None:
    engine = FakeEngine(pace=QUICK)
    async with open_house(tmp_path, engine) as house:
        for _ in range(3):
            engine.faults.add(Fault(FaultKind.CUT_AFTER, chunks=2))
            assert (await stream(house))[-1]["error"]["code"] == "engine_failed"
            assert "word3" in text_of(await stream(house))


async def test_an_engine_that_hangs_is_left_when_the_registry_loses_it(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    engine.faults.add(Fault(FaultKind.STALL_AFTER, chunks=2, seconds=60))
    async with open_house(tmp_path, engine, lost_idle_s=0.2) as house:
        streaming = asyncio.create_task(stream(house))
        await eventually(lambda: house.scheduler.first_tokens)
        await asyncio.sleep(1.5)
        assert not streaming.done(), "a silent engine that is healthy is waited for"
        await house.put("b1", engine.url, healthy=False)
        told = await asyncio.wait_for(streaming, 30)
        assert told[-1]["error"]["code"] == "engine_failed"
        await eventually(lambda: engine.slots.running == 0)


async def test_an_engine_that_falls_silent_in_the_middle_is_left_though_it_is_healthy(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    engine.faults.add(Fault(FaultKind.STALL_AFTER, chunks=2, seconds=60))
    async with open_house(tmp_path, engine, stream_gap_s=0.5) as house:
        told = await asyncio.wait_for(stream(house), 30)
        assert told[-1]["error"]["code"] == "engine_failed"
        assert "0.5 s" in told[-1]["error"]["message"]
        await eventually(lambda: engine.slots.running == 0)


async def test_a_healthy_engine_may_take_its_time_before_it_begins(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    engine.faults.add(Fault(FaultKind.SLOW_HEADERS, seconds=2.5))
    async with open_house(tmp_path, engine, stream_gap_s=0.5) as house:
        assert "word3" in text_of(await stream(house))


async def test_a_request_that_had_no_answer_yet_moves_away_from_an_engine_that_hangs(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    engine.faults.add(Fault(FaultKind.SLOW_HEADERS, seconds=60))
    async with open_house(tmp_path, engine, FakeEngine(pace=QUICK), lost_idle_s=0.2) as house:
        streaming = asyncio.create_task(stream(house))
        await eventually(lambda: engine.record.requests)
        await house.put("b1", engine.url, healthy=False)
        assert "word3" in text_of(await asyncio.wait_for(streaming, 30))
        (row,) = await house.rows(1)
        assert (OUTCOME(row.outcome), row.attempts) == ("OUTCOME_FINISHED", 2)


async def test_a_request_that_had_no_answer_yet_moves_away_from_a_backend_that_is_drained(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    engine.faults.add(Fault(FaultKind.SLOW_HEADERS, seconds=60))
    async with open_house(tmp_path, engine, FakeEngine(pace=QUICK)) as house:
        streaming = asyncio.create_task(stream(house))
        await eventually(lambda: engine.record.requests)
        (ledger_id,) = house.scheduler.held
        house.scheduler.revokes.append(scheduler_pb2.Revoke(ledger_id=ledger_id, reason="draining"))
        assert "word3" in text_of(await asyncio.wait_for(streaming, 30))
        (nack,) = house.scheduler.nacks
        assert CLASS(nack.nack_class) == "NACK_CLASS_UNKNOWN_BACKEND", "nobody is to blame"
        (row,) = await house.rows(1)
        assert (OUTCOME(row.outcome), row.attempts, row.backend_id) == ("OUTCOME_FINISHED", 2, "b2")


async def test_what_has_begun_to_answer_finishes_on_a_backend_that_is_drained(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=40, answer_tokens=30))
    async with open_house(tmp_path, engine, FakeEngine(pace=QUICK)) as house:
        streaming = asyncio.create_task(stream(house))
        await eventually(lambda: house.scheduler.first_tokens)
        (ledger_id,) = house.scheduler.held
        house.scheduler.revokes.append(scheduler_pb2.Revoke(ledger_id=ledger_id, reason="draining"))
        assert "word29" in text_of(await asyncio.wait_for(streaming, 30))
        assert not house.scheduler.nacks


async def test_the_longest_duration_ends_what_never_ends(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=50, answer_tokens=5000))
    async with open_house(tmp_path, engine, max_duration_s=0.5) as house:
        told = await stream(house, max_tokens=3000, ignore_eos=True)
        assert told[-1]["error"]["code"] == "engine_failed"
        await eventually(lambda: engine.slots.running == 0)


async def test_the_engines_credential_travels_to_it_and_the_callers_key_does_not(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK, api_key="the-engines-own")
    async with open_house(tmp_path, engine) as house:
        house.admin.set_credential("b1", "the-engines-own")
        await house.put("b1", engine.url, has_credential=True)
        await asyncio.sleep(0.1)
        headers = {**house.headers, "x-request-id": "mine-1", "x-secret": "no"}
        async with house.post(ask(), headers=headers) as answer:
            assert answer.status == 200
        seen = engine.record.requests[0].headers
        assert seen["authorization"] == "Bearer the-engines-own"
        assert seen["x-request-id"] == "mine-1"
        assert "x-secret" not in seen
        assert str(house.key) not in str(seen)


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/v1/chat/completions", ask(), 503, "server_error"),
        ("/v1/responses", {"model": "fake-model", "input": "x"}, 503, "server_error"),
        ("/v1/messages", ask(max_tokens=4), 529, "overloaded_error"),
        ("/api/chat", ask(stream=False), 503, None),
    ],
)
async def test_engines_that_are_all_busy_are_told_as_that_with_their_own_moment_to_come_back(
    tmp_path: Path, path: str, body: dict[str, Any], status: int, kind: str | None
) -> None:
    one, two = FakeEngine(), FakeEngine()
    for engine in (one, two):
        engine.faults.add(Fault(FaultKind.STATUS, status=503, retry_after_s=7, message="server busy"))
    async with open_house(tmp_path, one, two) as house:
        async with house.client.post(f"{house.url}{path}", json=body, headers=house.headers) as answer:
            told = (await answer.json())["error"]
        assert (answer.status, answer.headers["x-forebay-reason"]) == (status, "queue_full")
        assert (answer.headers["retry-after"], answer.headers["x-forebay-attempts"]) == ("7", "2")
        if kind is not None:
            assert told["type"] == kind
        message = told if isinstance(told, str) else told["message"]
        assert "It is busy (503): server busy." in message
        (row,) = await house.rows(1)
        assert (OUTCOME(row.outcome), row.reason, row.http_status) == ("OUTCOME_FAILED", "queue_full", status)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [("broken", "broken."), ("Done.", "Done."), ("Really?", "Really?"), ("wait…", "wait…"), ("so \n", "so."), ("", "")],
)
def test_what_an_engine_says_becomes_a_sentence(said: str, sentence: str) -> None:
    assert as_sentence(said) == sentence
