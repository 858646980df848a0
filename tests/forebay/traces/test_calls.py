"""Spans of gRPC calls, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from forebay import errors
from forebay.rpc import ServiceTokens, open_peer, open_server, render_tokens, translated
from forebay.traces import spans
from forebay.traces.context import Place
from forebay.traces.spans import ALL, Kind, Sampling, Span, Traces, current
from forebay.wire.v1 import registry_pb2
from forebay.wire.v1.registry_pb2_grpc import RegistryServicer, RegistryStub, add_RegistryServicer_to_server
from tests.gateway.house import eventually

METHOD = "forebay.wire.v1.Registry/ListBackends"
ABOVE = Place(b"t" * 16, b"above it")


class Registry(RegistryServicer):
    def __init__(self) -> None:
        self.seen: list[Place | None] = []
        self.raises: Exception | None = None

    async def ListBackends(self, request: Any, context: Any) -> registry_pb2.ListBackendsResponse:
        self.seen.append(current.get())
        if self.raises is not None:
            raise self.raises
        return registry_pb2.ListBackendsResponse()


@pytest.fixture
def traces() -> Iterator[Traces]:
    opened = Traces(Sampling(ALL, heeds_parent=True), 1000, lambda: None, 1000)
    spans.set_opened(opened)
    yield opened
    spans.set_opened(None)


@pytest.fixture
def registry() -> Registry:
    return Registry()  # type: ignore[abstract]  # the other methods answer UNIMPLEMENTED


@pytest.fixture
async def call(registry: Registry, tmp_path: Path) -> AsyncIterator[Any]:
    async with serving(registry, tmp_path) as call:
        yield call


class serving:
    def __init__(self, registry: Registry, directory: Path, entrance: str = "") -> None:
        file = directory / "callers"
        file.write_text(render_tokens({"admin": "token"}))
        tokens = ServiceTokens(file, {"/forebay.wire.v1.Registry/*": frozenset({"admin"})})

        def add(server: grpc.aio.Server) -> None:
            add_RegistryServicer_to_server(registry, server)

        self._server = open_server("127.0.0.1:0", add, tokens, grace_s=0.1, entrance=entrance)

    async def __aenter__(self) -> Any:
        self._peer = open_peer(await self._server.__aenter__(), token="token")
        peer = await self._peer.__aenter__()

        async def call() -> None:
            with translated():
                await RegistryStub(peer.channel).ListBackends(
                    registry_pb2.ListBackendsRequest(), metadata=peer.metadata, timeout=30
                )

        return call

    async def __aexit__(self, *_: object) -> None:
        await self._peer.__aexit__(None, None, None)
        await self._server.__aexit__(None, None, None)


async def both(traces: Traces) -> tuple[Span, Span]:
    """What the caller and who was called tell of one call."""
    told: list[Span] = []

    def came() -> bool:
        told.extend(traces.take(10))
        return len(told) >= 2

    await eventually(came, lambda: f"only {told}")
    (asked,) = (span for span in told if span.kind is Kind.CLIENT)
    (answered,) = (span for span in told if span.kind is Kind.SERVER)
    return asked, answered


async def test_a_call_in_a_traced_request_is_a_span_on_both_sides(
    traces: Traces, registry: Registry, call: Any
) -> None:
    here = current.set(ABOVE)
    await call()
    current.reset(here)
    asked, answered = await both(traces)
    assert asked.name == answered.name == METHOD
    assert (asked.place.trace, asked.parent) == (ABOVE.trace, ABOVE.span)
    assert (answered.place.trace, answered.parent) == (ABOVE.trace, asked.place.span)
    assert registry.seen == [answered.place]
    assert (asked.error, answered.error) == ("", "")


async def test_a_call_that_is_refused_says_so_on_both_sides_and_stays_our_error(
    traces: Traces, registry: Registry, call: Any
) -> None:
    registry.raises = errors.NotFound("no such thing")
    here = current.set(ABOVE)
    with pytest.raises(errors.NotFound, match="no such thing"):
        await call()
    current.reset(here)
    asked, answered = await both(traces)
    assert asked.error == "NOT_FOUND"
    assert answered.error == str(registry.raises.reason)


async def test_a_call_outside_of_any_traced_request_is_no_span(traces: Traces, registry: Registry, call: Any) -> None:
    await call()
    assert registry.seen == [None]
    assert traces.take(10) == []


async def test_where_operators_come_in_a_call_begins_a_trace(
    traces: Traces, registry: Registry, tmp_path: Path
) -> None:
    async with serving(registry, tmp_path, entrance="forebay.wire.v1.Registry") as call:
        await call()
    (answered,) = traces.take(10)
    assert (answered.kind, answered.parent) == (Kind.SERVER, b"")
    assert registry.seen == [answered.place]


async def test_where_nothing_is_traced_a_context_is_left_alone(registry: Registry, call: Any) -> None:
    here = current.set(ABOVE)
    await call()
    current.reset(here)
    assert registry.seen == [None]
