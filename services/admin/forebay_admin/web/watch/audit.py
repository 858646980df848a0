"""`/console/audit`: who did what, when, through which interface, and how it was before and after; and whether the log still
is what was written."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from aiohttp import web
from markupsafe import Markup

from forebay.errors import BadInput, ForebayError
from forebay.wire.v1 import audit_pb2
from forebay_admin.row_files import Row
from forebay_admin.web.downloads import send_csv
from forebay_admin.web.drafts import CORRECTABLE, NO_DRAFTS, Drafts, refused
from forebay_admin.web.forms import Form
from forebay_admin.web.policy import HEADERS
from forebay_admin.web.visit import Visit, Visits
from forebay_admin.web.watch.audit_view import (
    COLUMNS,
    PATH,
    THROUGH,
    asked_for,
    audit_view,
    entry_rows_of_file,
    verdict,
)

_AT_ONCE_OF_FILE = 1000
_HERE = Markup("<!-- what is told while the check goes on -->")
_TELL_EACH_S = 1.0


class AuditPages:
    def __init__(self, visits: Visits) -> None:
        self._visits = visits

    def routes(self) -> list[web.RouteDef]:
        get = self._visits.get
        return [
            get(PATH, self._list, call="ListAudit"),
            get(f"{PATH}.csv", self._file, call="ListAudit"),
            get(f"{PATH}/verify", self._verify, call="VerifyAudit"),
        ]

    async def _list(self, visit: Visit) -> web.StreamResponse:
        query, drafts = Form(tuple(visit.query.items())), NO_DRAFTS
        try:
            told = await visit.ask("ListAudit", asked_for(query))
        except CORRECTABLE as error:
            drafts, told = refused("filter", query, error), audit_pb2.ListAuditResponse()
        return visit.page(
            "watch/audit.html",
            title="Audit",
            status=drafts.status,
            view=audit_view(told, visit.query),
            filters=drafts.filled("filter", query),
            through=(("", "any"), *THROUGH),
        )

    async def _file(self, visit: Visit) -> web.StreamResponse:
        wanted = asked_for(Form(tuple(visit.query.items())))

        async def pieces() -> AsyncIterator[Sequence[Row]]:
            wanted.limit, wanted.page, has_more = _AT_ONCE_OF_FILE, "", True
            while has_more:
                told = await visit.ask("ListAudit", wanted)
                yield entry_rows_of_file(told.entries)
                wanted.page = told.next_page
                has_more = bool(told.next_page)

        return await send_csv(visit, "audit", COLUMNS, pieces())

    # --- the chain ------------------------------------------------------------------------------------------------------

    async def _verify(self, visit: Visit) -> web.StreamResponse:
        """The page is sent in pieces: how far the check is stands on it while it goes on, and what came of it at its end."""
        query = Form(tuple(visit.query.items()))
        if not query.is_ticked("check"):
            return self._form(visit, NO_DRAFTS)
        try:
            wanted = audit_pb2.VerifyAuditRequest(
                from_seq=query.whole("from_seq", 0), to_seq=query.whole("to_seq", 0), anchor=query.get("anchor")
            )
            with visit.calling("VerifyAudit"):
                async with aclosing(self._visits.operator.VerifyAudit(wanted, None)) as news:
                    first = await anext(news)
                    return await self._tell(visit, query, first, news)
        except BadInput as error:
            return self._form(visit, refused("check", query, error, "anchor"))

    async def _tell(
        self,
        visit: Visit,
        query: Form,
        first: audit_pb2.VerifyAuditResponse,
        news: AsyncIterator[audit_pb2.VerifyAuditResponse],
    ) -> web.StreamResponse:
        draft = NO_DRAFTS.filled("check", query)
        page = visit.render("watch/verify.html", title="Check of the audit log", draft=draft, here=_HERE)
        above, _, below = page.partition(_HERE)
        response = web.StreamResponse(headers={**HEADERS, "content-type": "text/html; charset=utf-8"})
        response.enable_chunked_encoding()
        try:
            await response.prepare(visit.request)
            await response.write(above.encode())
            told, next_at = first, 0.0
            try:
                while not told.done:
                    if time.monotonic() >= next_at:
                        await response.write(visit.render("watch/_checked.html", verdict=verdict(told)).encode())
                        next_at = time.monotonic() + _TELL_EACH_S
                    told = await anext(news)
                last = visit.render("watch/_verdict.html", verdict=verdict(told), why="")
            except ForebayError as error:
                last = visit.render("watch/_verdict.html", verdict=verdict(told), why=error.message)
            await response.write(f"{last}{below}".encode())
            await response.write_eof()
        except ConnectionError:  # whoever asked has gone, and the check ends
            pass
        return response

    def _form(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        return visit.page(
            "watch/verify.html",
            title="Check of the audit log",
            status=drafts.status,
            draft=drafts("check"),
            here="",
        )
