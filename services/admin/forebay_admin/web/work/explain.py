"""`/console/explain`: what became of a request and why, by its id. What the scheduler decided is told to who may see it;
what the ledger keeps, to whoever's request it was."""

from __future__ import annotations

from urllib.parse import quote

from aiohttp import web

from forebay.errors import NotFound
from forebay.wire.v1 import admin_pb2, prices_pb2
from forebay_admin.json_form import word
from forebay_admin.web.forms import WrongField
from forebay_admin.web.visit import Visit, Visits, see_other
from forebay_admin.web.words import id_of
from forebay_admin.web.work.explain_view import TERMS, Story, entries_of, stories_of, tone_of

LONGEST_ID = 256
_LATEST = 25
_COLUMNS: tuple[str | dict[str, object], ...] = (
    "Backend",
    *(
        {"title": title, "number": True}
        for title in ("Total", *(title for _, title, _ in TERMS), "Cached tokens", "Free slots")
    ),
    "Chosen",
)


class ExplainPages:
    def __init__(self, visits: Visits) -> None:
        self._visits = visits

    def routes(self) -> list[web.RouteDef]:
        return [
            self._visits.get("/console/explain", self._form, call="ShowCost"),
            self._visits.get("/console/explain/{id}", self._explain, call="ShowCost"),
        ]

    async def _form(self, visit: Visit) -> web.StreamResponse:
        try:
            asked = request_id(visit.query.get("id", ""))
        except WrongField as error:
            return await self._page(visit, visit.query.get("id", "")[:LONGEST_ID], wrong=error, status=400)
        return see_other(explain_path(asked)) if asked else await self._page(visit)

    async def _explain(self, visit: Visit) -> web.StreamResponse:
        try:
            asked = request_id(visit.part("id"))
        except WrongField as error:
            return await self._page(visit, visit.part("id")[:LONGEST_ID], wrong=error, status=400)
        stories: list[Story] = []
        names = admin_pb2.Names()
        if visit.may_all("ViewExplanation"):
            try:
                told = await visit.ask_or_none("ViewExplanation", admin_pb2.ViewExplanationRequest(request_id=asked))
            except NotFound:
                visit.unknown["ViewExplanation"] = (
                    "The scheduler remembers the latest requests only, and those that a gateway refused never reach it."
                )
            else:
                if told is not None:
                    stories, names = stories_of(told), told.names
        costs = await visit.ask_or_none("ShowCost", prices_pb2.ShowCostRequest(request_id=asked))
        entries = entries_of(costs, names) if costs is not None else []
        if not stories and not entries:
            found_nothing = (
                "No request of that id is known: neither the scheduler nor the ledger of the last seven days has it. "
                "A ledger id is found whatever its age."
                if costs is not None
                else visit.unknown["ShowCost"]
            )
            wrong = WrongField("id", found_nothing)
            return await self._page(visit, asked, wrong=wrong, status=404 if costs is not None else 503)
        return visit.page(
            "work/explain_one.html",
            title=f"Request {asked}" if len(asked) <= 60 else "Request",
            asked=asked,
            stories=stories,
            entries=entries,
            terms=TERMS,
            columns=_COLUMNS,
        )

    async def _page(
        self, visit: Visit, asked: str = "", *, wrong: WrongField | None = None, status: int = 200
    ) -> web.StreamResponse:
        latest = []
        if visit.may("ShowUsage"):
            told = await visit.ask_or_none("ShowUsage", admin_pb2.ShowUsageRequest(rows=True, limit=_LATEST))
            latest = [
                {
                    "id": id_of(row.ledger_id),
                    "label": row.request_id or id_of(row.ledger_id),
                    "at": row.started_at_us / 1_000_000,
                    "model": row.model or row.model_requested,
                    "outcome": word(row, "outcome") or "unknown",
                    "tone": tone_of(word(row, "outcome") or ""),
                    "reason": row.reason,
                    "took_s": row.duration_ms / 1000,
                }
                for row in (told.rows if told is not None else ())
            ]
        return visit.page(
            "work/explain.html", title="Explain a request", status=status, asked=asked, wrong=wrong, latest=latest
        )


def request_id(text: str) -> str:
    """As clients and the ledger write it. Raises WrongField."""
    asked = text.strip()
    if len(asked) > LONGEST_ID or not asked.isprintable():
        raise WrongField("id", f"A request's id has at most {LONGEST_ID} letters, digits and signs.")
    return asked


def explain_path(asked: str) -> str:
    return f"/console/explain/{quote(asked, safe='')}"
