"""What a traced request tells of itself, and that one which is not traced costs and tells nothing."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from select import select
from typing import Any

import pytest

from forebay.metrics import Metrics
from forebay.traces.context import unpacked
from forebay.traces.opening import open_tracing
from forebay.traces.spans import Kind, Span
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_orders import Pace
from tests.gateway import test_hot_calls
from tests.gateway.house import MODEL, House, ask, eventually, open_house
from tests.gateway.test_hot_calls import usual_house

QUICK = Pace(tokens_per_s=1000, answer_tokens=4)
SLOW = Pace(tokens_per_s=5, answer_tokens=1000)
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
STATE = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"


@contextmanager
def traced(**environ: str) -> Iterator[list[Span]]:
    """All spans, once it is left."""
    told: list[Span] = []

    def export(batch: Sequence[Span]) -> str:
        told.extend(batch)
        return ""

    with open_tracing("gateway", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", **environ}, export=export):
        yield told


def named(told: Sequence[Span], name: str) -> list[Span]:
    return [span for span in told if span.name == name]


def only(told: Sequence[Span], name: str, kind: Kind = Kind.INTERNAL) -> Span:
    (found,) = [span for span in told if span.name == name and span.kind is kind]
    return found


async def served(
    house: House, traceparent: str = "", tracestate: str = "", *, request_id: str = "", stream: bool = False
) -> int:
    asked = {"traceparent": traceparent, "tracestate": tracestate, "x-request-id": request_id}
    sent = {name: value for name, value in asked.items() if value}
    async with house.post(ask(stream=stream), headers={**house.headers, **sent}) as answer:
        await answer.read()
        return int(answer.status)


@asynccontextmanager
async def a_house(directory: Path, *engines: FakeEngine, **changes: Any) -> AsyncIterator[House]:
    async with open_house(directory, *(engines or (FakeEngine(pace=QUICK),)), **changes) as house:
        yield house


@pytest.mark.parametrize("hot_path", [True, False], ids=["hot", "aiohttp"])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "plain"])
async def test_a_request_is_one_connected_trace_below_its_clients_span(
    tmp_path: Path, hot_path: bool, stream: bool
) -> None:
    engine = FakeEngine(pace=QUICK)
    with traced() as told:
        async with a_house(tmp_path, engine, hot_path=hot_path) as house:
            assert await served(house, SAMPLED, STATE, request_id="mine", stream=stream) == 200
            (submit,) = house.scheduler.submits
    request = only(told, f"chat {MODEL}", Kind.SERVER)
    wait, attempt, settle = (
        only(told, "wait for a slot"),
        only(told, f"chat {MODEL}", Kind.CLIENT),
        only(told, "settle"),
    )
    assert {span.place.trace.hex() for span in told} == {TRACE}
    assert request.parent.hex() == SPAN
    assert {span.parent for span in (wait, attempt, settle)} == {request.place.span}
    assert unpacked(submit.traced) == request.place._replace(state="")

    (seen,) = engine.record.requests
    assert seen.headers["traceparent"] == f"00-{TRACE}-{attempt.place.span.hex()}-01"
    assert seen.headers["tracestate"] == STATE

    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": MODEL,
        "gen_ai.response.model": MODEL,
        "gen_ai.provider.name": "vllm",
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.response.finish_reasons": ["stop"],
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "forebay.request_id": "mine",
        "forebay.pool": "default",
        "forebay.backend": "b1",
        "forebay.attempts": 1,
        "forebay.outcome": "finished",
        "forebay.stream": stream,
    }
    assert {name: request.attributes.get(name) for name in expected} == expected
    assert request.attributes["gen_ai.usage.input_tokens"]
    assert isinstance(request.attributes["forebay.queue_ms"], int)
    assert "error.type" not in request.attributes
    assert wait.attributes["forebay.granted_by"] == "scheduler"
    assert attempt.attributes["server.address"] == "127.0.0.1"
    assert attempt.attributes["server.port"] == engine.port
    assert [event.name for event in attempt.events] == ["sent", "first_byte"]

    times = [request.began, wait.began, wait.ended, attempt.events[0].at, attempt.events[1].at]
    assert times == sorted(times)
    assert attempt.events[1].at <= settle.began <= settle.ended <= request.ended
    assert attempt.ended <= request.ended


async def test_nothing_that_was_asked_answered_or_kept_secret_is_in_a_span(tmp_path: Path) -> None:
    with traced() as told:
        async with a_house(tmp_path) as house:
            await served(house)
            path = f"{house.url}/k/{house.key}/v1/chat/completions"
            async with house.client.post(path, json=ask()) as answer:
                assert answer.status == 200
                said = (await answer.json())["choices"][0]["message"]["content"]
            key = str(house.key)
    assert len(named(told, "settle")) == 2
    text = repr(told)
    for secret in (key, key.rpartition("-")[2], "Say some words", said):
        assert secret not in text


async def test_a_request_without_a_context_is_the_trace_that_its_ledger_id_names(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    with traced() as told:
        async with a_house(tmp_path, engine) as house:
            await served(house)
            (row,) = await house.rows(1)
    request = only(told, f"chat {MODEL}", Kind.SERVER)
    assert (request.place.trace, request.parent) == (row.ledger_id, b"")
    assert request.attributes["forebay.ledger_id"] == row.ledger_id.hex()
    assert engine.record.requests[0].headers["traceparent"].startswith(f"00-{row.ledger_id.hex()}-")


async def test_what_is_not_traced_passes_its_clients_context_on_and_tells_nothing(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    with traced(OTEL_TRACES_SAMPLER="parentbased_always_off") as told:
        async with a_house(tmp_path, engine) as house:
            await served(house, NOT_SAMPLED, STATE)
            await served(house)
            await served(house, SAMPLED[:-1], STATE)
            await served(house, f"00-{'0' * 32}-{SPAN}-01")
            submits = list(house.scheduler.submits)
    first, *others = [seen.headers for seen in engine.record.requests]
    assert (first["traceparent"], first["tracestate"]) == (NOT_SAMPLED, STATE)
    for seen in others:
        assert not {"traceparent", "tracestate"} & seen.keys()
    assert [submit.traced for submit in submits] == [b""] * 4
    assert told == []


async def test_without_tracing_a_clients_context_goes_on_to_the_engine(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    async with a_house(tmp_path, engine) as house:
        await served(house, SAMPLED, STATE)
    assert engine.record.requests[0].headers["traceparent"] == SAMPLED
    assert engine.record.requests[0].headers["tracestate"] == STATE


async def test_each_attempt_is_a_span_and_the_one_that_failed_says_why(tmp_path: Path) -> None:
    broken, sound = FakeEngine(pace=QUICK), FakeEngine(pace=QUICK)
    broken.faults.add(Fault(FaultKind.STATUS, status=500))
    with traced() as told:
        async with a_house(tmp_path, broken, sound) as house:
            assert await served(house, SAMPLED) == 200
            (nack,) = house.scheduler.nacks
    first, second = [span for span in told if span.kind is Kind.CLIENT]
    assert (first.attributes["forebay.backend"], first.error) == ("b1", "failed")
    assert (second.attributes["forebay.backend"], second.error) == ("b2", "")
    assert first.ended <= second.began
    for engine, attempt in ((broken, first), (sound, second)):
        assert engine.record.requests[0].headers["traceparent"] == attempt.place.traceparent
    request = only(told, f"chat {MODEL}", Kind.SERVER)
    assert (request.attributes["forebay.attempts"], request.error) == (2, "")
    assert len(named(told, "wait for a slot")) == 2
    assert unpacked(nack.traced) == request.place


async def test_a_refusal_is_told_by_its_word_and_a_clients_mistake_is_no_error_of_the_servers(tmp_path: Path) -> None:
    with traced() as told:
        async with a_house(tmp_path) as house:
            async with house.post(ask(), headers={}) as answer:
                assert answer.status == 401
            async with house.post({**ask(), "model": "unheard-of"}) as answer:
                assert answer.status == 404
                word = answer.headers["x-forebay-reason"]
    keyless, unknown = (span for span in told if span.kind is Kind.SERVER)
    assert (keyless.name, keyless.attributes["http.response.status_code"]) == ("chat", 401)
    assert (unknown.name, unknown.attributes["error.type"]) == ("chat unheard-of", word)
    assert (keyless.error, unknown.error) == ("", "")
    assert named(told, "wait for a slot") == []


async def test_a_client_that_goes_ends_its_attempt_as_cancelled(tmp_path: Path) -> None:
    engine = FakeEngine(pace=SLOW)
    with traced() as told:
        async with a_house(tmp_path, engine) as house:
            async with house.post(ask(stream=True)) as answer:
                await answer.content.readany()
            await house.rows(1)
            await eventually(lambda: house.metric("forebay_gateway_running") == 0)
    attempt = only(told, f"chat {MODEL}", Kind.CLIENT)
    request = only(told, f"chat {MODEL}", Kind.SERVER)
    assert attempt.error == "cancelled"
    assert (request.attributes["forebay.outcome"], request.error) == ("cancelled", "")


async def test_what_begins_on_a_credit_says_so(tmp_path: Path) -> None:
    with traced() as told:
        async with usual_house(tmp_path) as (house, _):
            assert [await served(house) for _ in range(3)] == [200] * 3
            on_credit = house.metric('forebay_gateway_starts_unasked_total{by="credit"}')
    granted_by = [span.attributes["forebay.granted_by"] for span in named(told, "wait for a slot")]
    assert granted_by[-1] == "credit"
    assert granted_by.count("credit") == on_credit


async def test_lines_of_the_log_about_a_traced_request_name_its_trace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    broken = FakeEngine(pace=QUICK)
    broken.faults.add(Fault(FaultKind.STATUS, status=500))
    with traced() as told:
        async with a_house(tmp_path, broken, FakeEngine(pace=QUICK)) as house:
            await served(house, SAMPLED, request_id="mine")
            await served(house, NOT_SAMPLED)
    (line,) = [record for record in caplog.records if record.message == "attempt failed"]
    request = only(told, f"chat {MODEL}", Kind.SERVER)
    said = vars(line)
    assert (said["trace_id"], said["span_id"]) == (TRACE, request.place.span.hex())
    assert said["request_id"] == "mine"
    others = [record for record in caplog.records if record is not line and "trace_id" in vars(record)]
    assert others == []


async def test_a_collector_that_hangs_holds_no_request_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as collector:  # which takes connections, and never says anything
        endpoint = f"http://127.0.0.1:{collector.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "500")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
        metrics = Metrics()
        with open_tracing("gateway", metrics=metrics):
            async with a_house(tmp_path) as house:
                assert await served(house) == 200
                await eventually(lambda: select([collector], [], [], 0)[0], "the exporter did not come")
                assert [await served(house) for _ in range(5)] == [200] * 5
        dropped = re.search(rb"forebay_spans_dropped_total (\d+)", metrics.exposition())
        assert dropped is not None
        assert int(dropped[1]) == 6 * 4


def test_with_an_endpoint_a_request_that_is_not_traced_makes_hardly_more_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_hot_calls, "REQUEST_IN_PYTHON", test_hot_calls.REQUEST_IN_PYTHON + 3)
    monkeypatch.setattr(test_hot_calls, "REQUEST_IN_C", test_hot_calls.REQUEST_IN_C + 1)
    with traced(OTEL_TRACES_SAMPLER="parentbased_always_off"):
        test_hot_calls.run(test_hot_calls._count_request(tmp_path))
