"""Numbers of the past as JSON, for plots: by the same rights as the pages that show them."""

from __future__ import annotations

from aiohttp import web

from forebay.errors import NotFound
from forebay.wire.v1 import usage_queries_pb2
from forebay_admin.fleet.history_rows import pages_of
from forebay_admin.web.fleet import plots
from forebay_admin.web.visit import Visit, Visits

US = 1_000_000
_MOST_LINES = 10_000


class DataPages:
    def __init__(self, visits: Visits) -> None:
        self._visits = visits

    def routes(self) -> list[web.RouteDef]:
        return [
            self._visits.api("GET", plots.HISTORY, self._history),
            self._visits.api("GET", plots.USAGE, self._usage),
        ]

    async def _history(self, visit: Visit) -> web.StreamResponse:
        query = visit.request.query
        asked = plots.asked(
            query.get("kind", ""),
            query.getall("name", []),
            query.getall("metric", []),
            query.get("span", ""),
            is_summed=query.get("sum", "") == "1",
        )
        request = asked.request(visit.now)
        try:
            pages = [page async for page in pages_of(lambda wanted: visit.ask("ShowHistory", wanted), request)]
        except NotFound:
            pages = []  # a plot of what is too young to have a history is empty, and no failure
        return web.json_response(plots.history_numbers(pages, asked))

    async def _usage(self, visit: Visit) -> web.StreamResponse:
        query = visit.request.query
        span = plots.span_named(query.get("span", ""))
        columns = plots.usage_columns(query.getall("column", []))
        begin = plots.usage_begins(span, visit.now)
        request = usage_queries_pb2.QueryUsageRequest(
            from_us=begin * US,
            to_us=round(visit.now * US),
            bucket=span.bucket,
            model=query.get("model", ""),
            backend_id=query.get("backend_id", ""),
            limit=_MOST_LINES,
        )
        return web.json_response(plots.usage_numbers(await visit.ask("QueryUsage", request), span, columns))
