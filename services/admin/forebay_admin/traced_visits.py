"""Spans of visits to admin's HTTP port: the REST API and the pages. By route and not by path, in which a token may stand."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from forebay.traces.context import read_traceparent, read_tracestate
from forebay.traces.spans import Attributes, Kind, Span, Traces, current, new_trace_id

_STREAM = "text/event-stream"


def traced_visits(traces: Traces) -> Middleware:
    """To be outside of all others."""

    @web.middleware
    async def visit(request: web.Request, handler: Handler) -> web.StreamResponse:
        above = read_traceparent(request.headers.get("traceparent", ""))
        state = "" if above is None else read_tracestate(request.headers.get("tracestate", ""))
        begun = traces.begin(new_trace_id(), above, state)
        if begun is None:
            return await handler(request)
        began, status, is_stream = time.time(), 500, False
        here = current.set(begun.place)
        try:
            response = await handler(request)
            status, is_stream = response.status, response.content_type == _STREAM
            return response
        except web.HTTPException as told:
            status = told.status
            raise
        except (asyncio.CancelledError, ConnectionError):
            status = 0
            raise
        finally:
            current.reset(here)
            if not is_stream:  # a page that is kept up to date, for as long as somebody looks at it
                resource = request.match_info.route.resource
                route = "" if resource is None else resource.canonical
                attributes: Attributes = {"http.request.method": request.method} | (
                    {"http.route": route} if route else {}
                )
                traces.tell(
                    Span(
                        f"{request.method} {route}".rstrip(),
                        Kind.SERVER,
                        begun.place,
                        begun.parent,
                        began,
                        time.time(),
                        {**attributes, "http.response.status_code": status} if status else attributes,
                        str(status) if status >= 500 else "" if status else "cancelled",
                        has_remote_parent=True,
                    )
                )

    return visit
