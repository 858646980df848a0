"""`/me/usage`: what one used, by day, model and key; drawn, listed and as a file. The ledger is asked once for a page and
all that is drawn on it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from aiohttp import web

from forebay.errors import BadInput
from forebay.wire.v1 import admin_pb2
from forebay.wire.v1 import usage_queries_pb2 as wire
from forebay_admin.row_files import Row
from forebay_admin.web.downloads import send_csv
from forebay_admin.web.forms import Form
from forebay_admin.web.personal.usage_view import (
    COLUMNS,
    PATH,
    PLOTS,
    SPAN_WORDS,
    Asked,
    asked_from,
    file_rows,
    keys_of,
    models_of,
    plot,
    points_of,
    question,
    question_of_all,
    request_rows,
    steps_of,
    usage_view,
)
from forebay_admin.web.policy import HEADERS
from forebay_admin.web.visit import Visit, Visits

_ROWS = 20
_AT_ONCE = 5000
_DRAWN_WITHIN_S = 15.0
"""How long what a page was made of is kept for its plots: a phone takes a while to ask for them."""
_MOST_KEPT = 500


class OwnUsagePages:
    def __init__(self, visits: Visits) -> None:
        self._visits = visits
        self._kept: OrderedDict[tuple[str, str], tuple[float, wire.QueryUsageResponse]] = OrderedDict()
        """By user and address: until when, and the steps. The last one to be made comes last."""

    def routes(self) -> list[web.RouteDef]:
        return [
            self._visits.get(PATH, self._page, call="QueryUsage"),
            self._visits.get(f"{PATH}.csv", self._file, call="QueryUsage"),
            self._visits.get(f"{PATH}/{{of}}.json", self._plot, call="QueryUsage"),
        ]

    async def _page(self, visit: Visit) -> web.StreamResponse:
        asked = _asked(visit)
        told = await visit.ask("QueryUsage", question_of_all(asked, visit.user, visit.now))
        steps = self._keep(visit, asked, steps_of(told))
        rows = None
        if visit.may("ShowUsage"):
            request = admin_pb2.ShowUsageRequest(user=visit.user, rows=True, limit=_ROWS)
            rows = request_rows((await visit.ask("ShowUsage", request)).rows)
        return visit.page(
            "personal/usage.html",
            title="Your usage",
            asked=asked,
            spans=[(f"{PATH}?{Asked(span, asked.key, asked.model).query}", word) for span, word in SPAN_WORDS],
            view=usage_view(steps),
            points=points_of(steps),
            models=models_of(told, asked),
            keys=keys_of(told, asked),
            rows=rows,
        )

    async def _plot(self, visit: Visit) -> web.StreamResponse:
        of, asked = visit.part("of"), _asked(visit)
        if of not in PLOTS:
            raise BadInput(f"There are {', '.join(PLOTS)}.")
        until, steps = self._kept.get((visit.known.user_id, asked.query), (0.0, wire.QueryUsageResponse()))
        if visit.now >= until:
            told = await visit.ask("QueryUsage", question(asked, visit.user, visit.now, bucketed=True))
            steps = self._keep(visit, asked, told)
        return web.json_response(plot(steps, asked, of), headers=HEADERS)

    def _keep(self, visit: Visit, asked: Asked, steps: wire.QueryUsageResponse) -> wire.QueryUsageResponse:
        whose = (visit.known.user_id, asked.query)
        self._kept[whose] = (visit.now + _DRAWN_WITHIN_S, steps)
        self._kept.move_to_end(whose)
        if len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return steps

    async def _file(self, visit: Visit) -> web.StreamResponse:
        asked = _asked(visit)
        request = question(asked, visit.user, visit.now, wire.USAGE_COLUMN_MODEL, wire.USAGE_COLUMN_KEY)
        request.bucket, request.limit = wire.USAGE_BUCKET_DAY, _AT_ONCE
        day = datetime.fromtimestamp(visit.now, UTC).strftime("%Y-%m-%d")
        return await send_csv(visit, f"usage-{day}", COLUMNS, _pieces(visit, request))


async def _pieces(visit: Visit, request: wire.QueryUsageRequest) -> AsyncIterator[Sequence[Row]]:
    while True:
        told = await visit.ask("QueryUsage", request)
        yield file_rows(told)
        request.page = told.next_page
        if not request.page:
            return


def _asked(visit: Visit) -> Asked:
    """Raises WrongField."""
    return asked_from(Form(tuple(visit.query.items())))
