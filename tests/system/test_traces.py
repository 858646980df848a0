"""A traced request through a whole Forebay: what a collector is sent, and that it hangs together."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings

from tests.system.conftest import FakeEngineProcess
from tests.system.installation import Installation, ask, eventually, start_up

ONE, TWO, THREE = (
    "4bf92f3577b34da6a3ce929d0e0e4736",
    "5bf92f3577b34da6a3ce929d0e0e4736",
    "6bf92f3577b34da6a3ce929d0e0e4736",
)
"""Traces, one for each test."""
PARENT = "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def collector_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def traced(
    fake_engine: FakeEngineProcess, collector_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """`forebay up` before the fake engine; its gateway asks the scheduler each time."""
    directory = tmp_path_factory.mktemp("traced")
    settings = directory / "forebay.toml"
    settings.write_text(
        f'[[registry.backends]]\nname = "fake"\nurl = "{fake_engine.url}"\nkind = "openai"\nslots = 4\n'
    )
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        "FOREBAY_GATEWAY_CREDITS": "false",
    }
    running = start_up(directory / "data", "--no-engine", "--config", str(settings), environment=environment)
    yield running
    running.stop()


@asynccontextmanager
async def collecting(port: int) -> AsyncIterator[list[Span]]:
    """What comes meanwhile."""
    came: list[Span] = []

    async def collect(receiver: OtelTapHttpProtobufReceiver) -> None:
        async for span in receiver.stream_traces():
            came.append(span)

    async with OtelTapHttpProtobufReceiver(OtelTapHttpProtobufReceiverSettings(http_port=port)) as receiver:
        task = asyncio.create_task(collect(receiver))
        try:
            yield came
        finally:
            task.cancel()


def attributes(span: Span) -> dict[str, object]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}


async def test_a_request_is_one_trace_from_its_client_over_gateway_and_scheduler_to_the_engine(
    traced: Installation, collector_port: int, client: aiohttp.ClientSession
) -> None:
    async with collecting(collector_port) as came:
        headers = {**traced.headers, "traceparent": f"00-{ONE}-{PARENT}-01"}
        body = ask("Say a few words.", max_tokens=4, stream=True) | {"model": "fake-model"}
        async with client.post(f"{traced.gateway}/v1/chat/completions", json=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            await answer.read()
        await eventually(lambda: len(came) >= 5, 60, "not all spans came")
    by_name = {(span.name, span.kind): span for span in came}
    assert len(by_name) == len(came) == 5, [span.name for span in came]
    request = by_name["chat fake-model", Span.SPAN_KIND_SERVER]
    attempt = by_name["chat fake-model", Span.SPAN_KIND_CLIENT]
    schedule = by_name["schedule", Span.SPAN_KIND_INTERNAL]
    assert {span.trace_id.hex() for span in came} == {ONE}
    assert request.parent_span_id.hex() == PARENT
    assert {span.parent_span_id for span in came if span is not request} == {request.span_id}
    assert attributes(schedule)["forebay.outcome"] == "granted"
    assert attributes(schedule)["forebay.backend"] == attributes(attempt)["forebay.backend"]
    assert attributes(request)["gen_ai.usage.output_tokens"] == 4
    assert [event.name for event in attempt.events] == ["sent", "first_byte"]
    assert request.start_time_unix_nano <= schedule.start_time_unix_nano <= attempt.start_time_unix_nano


async def test_an_operators_call_is_followed_from_admins_http_port_to_the_part_that_answers(
    traced: Installation, collector_port: int, client: aiohttp.ClientSession
) -> None:
    async with collecting(collector_port) as came:
        headers = {**traced.headers, "traceparent": f"00-{TWO}-{PARENT}-01"}
        url = f"{traced.connection['admin_http']}/api/v1/queue"
        async with client.get(url, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
        asked_for = "forebay.wire.v1.Scheduler/ShowQueue"
        wanted = {"GET /api/v1/queue": 1, asked_for: 2}
        await eventually(lambda: wanted.items() <= Counter(span.name for span in came).items(), 60, "spans are missing")
    (visit,) = (span for span in came if span.name == "GET /api/v1/queue")
    (asked,) = (span for span in came if span.name == asked_for and span.kind == Span.SPAN_KIND_CLIENT)
    (answered,) = (span for span in came if span.name == asked_for and span.kind == Span.SPAN_KIND_SERVER)
    assert visit.parent_span_id.hex() == PARENT
    assert (asked.parent_span_id, answered.parent_span_id) == (visit.span_id, asked.span_id)
    assert {span.trace_id.hex() for span in came} == {TWO}


async def test_nothing_is_dropped_and_what_is_not_sampled_is_not_sent(
    traced: Installation, collector_port: int, client: aiohttp.ClientSession
) -> None:
    async with collecting(collector_port) as came:
        body = ask("Say a few words.", max_tokens=4) | {"model": "fake-model"}
        for more in ({}, {"traceparent": f"00-{THREE}-{PARENT}-00"}, {"traceparent": f"00-{THREE}-{PARENT}-01"}):
            headers = {**traced.headers, **more}
            async with client.post(f"{traced.gateway}/v1/chat/completions", json=body, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
        await eventually(lambda: Counter(span.trace_id.hex() for span in came)[THREE] >= 5, 60, "not all spans came")
        assert {span.trace_id.hex() for span in came} <= {ONE, TWO, THREE}
    async with client.get(f"http://127.0.0.1:{traced.base_port + 5}/metrics") as answer:
        told = await answer.text()
    assert "forebay_spans_dropped_total 0.0" in told
    assert "forebay_spans_exported_total" in told
