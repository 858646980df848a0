"""`/console/usage`: what was used and what it cost, by whatever tells requests apart; the same as a plot, as a file, and row
by row. Every view is a link: all of it stands in the address."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from aiohttp import web

from forebay.errors import BadInput, NotFound
from forebay.wire.v1 import admin_pb2, usage_queries_pb2
from forebay_admin.ledger.usage_words import COLUMNS, ORDERS, OUTCOMES
from forebay_admin.row_files import Row
from forebay_admin.web.downloads import send_csv
from forebay_admin.web.forms import WrongField
from forebay_admin.web.policy import HEADERS
from forebay_admin.web.visit import Visit, Visits
from forebay_admin.web.work.usage_query import (
    LASTS,
    MOST_TOP,
    PARTS,
    USUAL,
    Asked,
    read_asked,
)
from forebay_admin.web.work.usage_view import LedgerRow, file_columns, file_rows, ledger_row, plot_of, usage_view

_LINES = 200
"""Of the table, at once."""
_MOST_LINES = 10_000
_PLOTTED = 6
_ROWS = 100
_READ = 1000
_MOST_READS = 5
"""Pages of the ledger that are looked through for rows that were not billed, before one is asked to go on."""
_PATH, _ROWS_PATH = "/console/usage", "/console/usage/rows"


class UsagePages:
    def __init__(self, visits: Visits) -> None:
        self._visits = visits

    def routes(self) -> list[web.RouteDef]:
        get = self._visits.get
        return [
            get(_PATH, self._explore, call="QueryUsage"),
            get(f"{_PATH}.json", self._plot, call="QueryUsage"),
            get(f"{_PATH}.csv", self._file, call="QueryUsage"),
            get(_ROWS_PATH, self._rows, call="ReadLedger"),
        ]

    async def _explore(self, visit: Visit) -> web.StreamResponse:
        try:
            asked = read_asked(visit.query)
            request = asked.asking(visit.now, limit=_LINES, page=asked.page)
            told = await visit.ask("QueryUsage", request)
        except (BadInput, NotFound) as error:
            return self._page(visit, _as_typed(visit.query), wrong=error)
        before = told.total_before if told.HasField("total_before") else None
        if asked.compare and asked.part:
            # Spans are compared as a whole; the lines stand for themselves.
            whole = replace(asked, by="", then="", top=0, page="")
            before = (await visit.ask("QueryUsage", whole.asking(visit.now, limit=1))).total_before
        view = usage_view(told, asked, await self._backends(visit, asked), before)
        return self._page(visit, asked, view=view)

    def _page(
        self, visit: Visit, asked: Asked, *, view: object = None, wrong: BadInput | NotFound | None = None
    ) -> web.Response:
        return visit.page(
            "work/usage.html",
            title="Usage and cost",
            status=200 if wrong is None else 400,
            asked=asked,
            view=view,
            wrong=wrong,
            wrong_name=wrong.name if isinstance(wrong, WrongField) else "",
            parts=tuple(PARTS),
            columns=tuple(COLUMNS),
            lasts=tuple(LASTS),
            usual=USUAL,
            orders=tuple(ORDERS),
            outcomes=tuple(OUTCOMES),
            most_top=MOST_TOP,
        )

    async def _plot(self, visit: Visit) -> web.StreamResponse:
        asked = read_asked(visit.query)
        request = asked.asking(visit.now, limit=_MOST_LINES)
        if asked.columns and not 0 < asked.top <= _PLOTTED:
            request.top = _PLOTTED
        told = await visit.ask("QueryUsage", request)
        return web.json_response(plot_of(told, asked, await self._backends(visit, asked)), headers=HEADERS)

    async def _file(self, visit: Visit) -> web.StreamResponse:
        """Page by page: a slow reader slows the asking, and nothing holds the whole."""
        asked = read_asked(visit.query)
        request = asked.asking(visit.now, limit=_MOST_LINES)
        names = await self._backends(visit, asked)

        async def pieces() -> AsyncIterator[Sequence[Row]]:
            has_more = True
            while has_more:
                told = await visit.ask("QueryUsage", request)
                yield list(file_rows(told.lines, asked, names))
                request.page = told.next_page
                has_more = bool(told.next_page)

        name = f"usage-{datetime.fromtimestamp(visit.now, UTC):%Y-%m-%d}"
        return await send_csv(visit, name, file_columns(asked), pieces())

    async def _rows(self, visit: Visit) -> web.StreamResponse:
        is_unbilled = bool(visit.query.get("unbilled"))
        found: list[LedgerRow] = []
        next_page, wrong = "", None
        try:
            asked = read_asked(visit.query)
            found, next_page = await self._read(visit, asked, is_unbilled=is_unbilled)
        except (BadInput, NotFound) as error:
            asked, wrong = _as_typed(visit.query), error
        return visit.page(
            "work/usage_rows.html",
            title="Rows of the ledger",
            status=200 if wrong is None else 400,
            asked=asked,
            is_unbilled=is_unbilled,
            rows=found,
            wrong=wrong,
            wrong_name=wrong.name if isinstance(wrong, WrongField) else "",
            lasts=tuple(LASTS),
            usual=USUAL,
            next_href=_rows_href(asked, next_page, is_unbilled=is_unbilled) if next_page else "",
        )

    async def _read(self, visit: Visit, asked: Asked, *, is_unbilled: bool) -> tuple[list[LedgerRow], str]:
        begin, end = asked.span(visit.now)
        request = usage_queries_pb2.ReadLedgerRequest(
            from_us=round(begin.timestamp() * 1e6),
            to_us=round(end.timestamp() * 1e6),
            user=asked.user,
            group=asked.group,
            key_id=asked.key,
            limit=_READ if is_unbilled else _ROWS,
            page=asked.page,
        )
        backends = await self._named_backends(visit)
        users = await self._named_users(visit)
        rows: list[LedgerRow] = []
        for _ in range(_MOST_READS if is_unbilled else 1):
            told = await visit.ask("ReadLedger", request)
            request.page = told.next_page
            rows += [
                ledger_row(one, users, backends)
                for one in told.rows
                if not is_unbilled or not one.HasField("cost_micros")
            ]
            if not told.next_page or len(rows) >= _ROWS:
                break
        return rows, request.page

    async def _backends(self, visit: Visit, asked: Asked) -> Mapping[str, str]:
        return await self._named_backends(visit) if "backend" in asked.columns else {}

    async def _named_backends(self, visit: Visit) -> Mapping[str, str]:
        """Ids stay ids for those who may not list backends, and while the registry is away."""
        if not visit.may_all("ShowBackends"):
            return {}
        told = await visit.ask_or_none("ShowBackends", admin_pb2.ShowBackendsRequest())
        return {one.id: one.name for one in told.backends} if told is not None else {}

    async def _named_users(self, visit: Visit) -> Mapping[str, str]:
        if not visit.may_all("ListUsers"):
            return {visit.known.user_id: visit.known.name}
        told = await visit.ask_or_none("ListUsers", admin_pb2.ListUsersRequest())
        return {one.id: one.name for one in told.users} if told is not None else {}


def _as_typed(query: Mapping[str, str]) -> Asked:
    """To fill the form with again, whatever is wrong with it."""
    told = {
        name: query[name][:200]
        for name in Asked.__dataclass_fields__
        if name in query and name not in ("top", "compare", "page")
    }
    return Asked(**told, compare=bool(query.get("compare")))  # type: ignore[arg-type]


def _rows_href(asked: Asked, page: str, *, is_unbilled: bool) -> str:
    return f"{_ROWS_PATH}?{asked.query(page=page)}{'&unbilled=1' if is_unbilled else ''}"
