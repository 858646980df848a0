"""Spans of gRPC calls: one where a call is made, one where it is answered, and `traceparent` in the metadata between them.

Calls with one answer only: a stream is open for as long as the services are, and part of no request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio

from forebay.errors import ForebayError
from forebay.traces.context import Place, read_traceparent
from forebay.traces.spans import Attributes, Begun, Kind, Span, Traces, current, new_span_id, new_trace_id

Call = Callable[[Any, Any], Awaitable[Any]]


def answering(call: Call, method: str, metadata: Any, traces: Traces, entrance: str) -> Call:
    """The same, which is a span when its caller's is one. Of the service `entrance`, such as `forebay.wire.v1.Operator`, a
    call may also begin a trace."""
    traceparent = next((value for name, value in metadata or () if name == "traceparent"), None)
    above = read_traceparent(traceparent) if isinstance(traceparent, str) else None
    if above is None and not (entrance and method.startswith(f"/{entrance}/")):
        return call
    begun = traces.begin(b"" if above is not None else new_trace_id(), above)
    return call if begun is None else _answering(call, method, begun, traces)


def _answering(call: Call, method: str, begun: Begun, traces: Traces) -> Call:
    async def answer(request: Any, context: Any) -> Any:
        began, error = time.time(), ""
        here = current.set(begun.place)
        try:
            return await call(request, context)
        except ForebayError as refused:
            error = str(refused.reason)
            raise
        except asyncio.CancelledError:
            error = "cancelled"
            raise
        except Exception as unforeseen:
            error = type(unforeseen).__name__
            raise
        finally:
            current.reset(here)
            traces.tell(_span(method, Kind.SERVER, begun.place, begun.parent, began, error))

    return answer


class TracedChannel:
    """A channel whose calls with one answer are spans of the request in which they are made. Everything else is the
    channel's own."""

    def __init__(self, channel: grpc.aio.Channel, traces: Traces) -> None:
        self._channel = channel
        self._traces = traces
        self._telling: set[asyncio.Task[None]] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def unary_unary(self, method: str, *forms: Any, **more: Any) -> Any:
        call: Any = self._channel.unary_unary(method, *forms, **more)

        def make(request: Any, *, metadata: Any = None, **options: Any) -> Any:
            above = current.get()
            if above is None:
                return call(request, metadata=metadata, **options)
            place = above._replace(span=new_span_id())
            began = time.time()
            made = call(request, metadata=(*(metadata or ()), ("traceparent", place.traceparent)), **options)

            def over(done: Any) -> None:
                telling = asyncio.get_running_loop().create_task(self._tell(done, method, place, above.span, began))
                self._telling.add(telling)
                telling.add_done_callback(self._telling.discard)

            made.add_done_callback(over)
            return made

        return make

    async def _tell(self, done: Any, method: str, place: Place, parent: bytes, began: float) -> None:
        """`done`: a call that is over, whose code is there without waiting."""
        ended, error = time.time(), "cancelled"
        with suppress(asyncio.CancelledError):
            code = await done.code()
            error = "" if code is grpc.StatusCode.OK else code.name
        self._traces.tell(_span(method, Kind.CLIENT, place, parent, began, error, ended))


def _span(
    method: str, kind: Kind, place: Place, parent: bytes, began: float, error: str, ended: float | None = None
) -> Span:
    attributes: Attributes = {"rpc.system.name": "grpc", "rpc.method": method[1:]}
    return Span(
        method[1:],
        kind,
        place,
        parent,
        began,
        time.time() if ended is None else ended,
        attributes,
        error,
        has_remote_parent=kind is Kind.SERVER,
    )
