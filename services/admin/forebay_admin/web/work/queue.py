"""`/console/queue`: who waits for what, and who has had how much of their part; `/console/queue/requests`: one by one."""

from __future__ import annotations

from aiohttp import web

from forebay.wire.v1 import admin_pb2, usage_queries_pb2
from forebay_admin.keys.key_words import BANDS
from forebay_admin.web.live import Live, Topic
from forebay_admin.web.visit import Visit, Visits
from forebay_admin.web.work.queue_view import (
    Filter,
    filter_of,
    filter_of_topic,
    pools_told,
    queue_view,
    requests_of,
    shares_view,
)

LATELY_S = 3600.0
"""What somebody had of a pool is counted over so long."""
_MOST_LINES = 10_000


class QueuePages:
    def __init__(self, visits: Visits, live: Live) -> None:
        self._visits = visits
        live.add(
            [
                Topic("queue", self._queue_piece, calls=("ViewQueue",), every_s=2.0, has_argument=True),
                # Its sums are the ledger's, which nobody needs twice a second.
                Topic("queue-shares", self._shares_piece, calls=("ViewQueue",), every_s=15.0, has_argument=True),
            ]
        )

    def routes(self) -> list[web.RouteDef]:
        return [
            self._visits.get("/console/queue", self._queue, call="ViewQueue"),
            self._visits.get("/console/queue/requests", self._requests, call="ViewDump"),
        ]

    async def _queue(self, visit: Visit) -> web.StreamResponse:
        asked = filter_of(visit.query)
        told = await visit.ask_or_none("ViewQueue", admin_pb2.ViewQueueRequest())
        return visit.page(
            "work/queue.html",
            title="Queue",
            asked=asked,
            pools=pools_told(told) if told is not None else [],
            bands=BANDS,
            view=queue_view(told, asked, visit.now) if told is not None else None,
            shares=await self._shares(visit, told, asked) if told is not None else None,
        )

    async def _requests(self, visit: Visit) -> web.StreamResponse:
        asked = filter_of(visit.query)
        told = await visit.ask("ViewDump", admin_pb2.ViewDumpRequest())
        rows, more = requests_of(told, asked)
        return visit.page(
            "work/queue_requests.html", title="Requests in the queue", asked=asked, bands=BANDS, rows=rows, more=more
        )

    async def _queue_piece(self, visit: Visit, argument: str) -> str:
        told = await visit.ask("ViewQueue", admin_pb2.ViewQueueRequest())
        return visit.render("work/_queue.html", view=queue_view(told, filter_of_topic(argument), visit.now))

    async def _shares_piece(self, visit: Visit, argument: str) -> str:
        told = await visit.ask("ViewQueue", admin_pb2.ViewQueueRequest())
        return visit.render("work/_shares.html", shares=await self._shares(visit, told, filter_of_topic(argument)))

    async def _shares(self, visit: Visit, told: admin_pb2.ViewQueueResponse, asked: Filter) -> object:
        had = None
        if told.queue.shares and visit.may_all("QueryUsage"):
            columns = [usage_queries_pb2.USAGE_COLUMN_POOL, usage_queries_pb2.USAGE_COLUMN_USER]
            since_us = round((visit.now - LATELY_S) * 1_000_000)
            had = await visit.ask_or_none(
                "QueryUsage", usage_queries_pb2.QueryUsageRequest(from_us=since_us, by=columns, limit=_MOST_LINES)
            )
        return shares_view(told, had, asked, visit.now, LATELY_S)
