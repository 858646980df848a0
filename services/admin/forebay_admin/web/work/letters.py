"""`/console/configuration/letters`: what came as usage and could not become a row of the ledger, and the way back for it."""

from __future__ import annotations

from aiohttp import web

from forebay.wire.v1 import usage_queries_pb2
from forebay_admin.web.visit import Visit, Visits, demand_text
from forebay_admin.web.work.configuration_view import letters_of
from forebay_admin.web.work.usage_view import ledger_row

_HERE = "/console/configuration/letters"
_LETTERS = 50
_SHOWN_BYTES = 2048
_SHOWN_ROWS = 50


class LettersPages:
    def __init__(self, visits: Visits) -> None:
        self._visits = visits

    def routes(self) -> list[web.RouteDef]:
        return [
            self._visits.get(_HERE, self._list, call="ListDeadLetters"),
            self._visits.post(f"{_HERE}/retry", self._retry, call="RetryDeadLetters"),
            self._visits.get(f"{_HERE}/{{id}}", self._one, call="ShowDeadLetter"),
        ]

    async def _list(self, visit: Visit) -> web.StreamResponse:
        page = demand_text(visit.query.get("page", ""), "A page")
        told = await visit.ask("ListDeadLetters", usage_queries_pb2.ListDeadLettersRequest(limit=_LETTERS, page=page))
        return visit.page(
            "work/letters.html",
            title="Dead letters",
            letters=letters_of(told),
            total=told.total,
            next_href=f"{_HERE}?page={told.next_page}" if told.next_page else "",
        )

    async def _one(self, visit: Visit) -> web.StreamResponse:
        asked = demand_text(visit.part("id"), "A dead letter's id")
        told = await visit.ask("ShowDeadLetter", usage_queries_pb2.ShowDeadLetterRequest(id=asked))
        (letter,) = letters_of(usage_queries_pb2.ListDeadLettersResponse(letters=[told.letter]))
        return visit.page(
            "work/letter.html",
            title=f"Dead letter {letter.id[:12]}",
            letter=letter,
            dump=_dump(told.payload[:_SHOWN_BYTES]),
            is_cut=letter.bytes > _SHOWN_BYTES,
            rows=[ledger_row(one, {}, {}) for one in told.records[:_SHOWN_ROWS]],
            more=max(0, len(told.records) - _SHOWN_ROWS),
        )

    async def _retry(self, visit: Visit) -> web.StreamResponse:
        request = usage_queries_pb2.RetryDeadLettersRequest(ids=visit.form.many("id"))
        done = await visit.ask("RetryDeadLetters", request)
        return visit.done(
            _HERE, f"{done.retried:,} read again, {done.rows:,} new rows in the ledger; {done.left:,} stay."
        )


def _dump(payload: bytes) -> str:
    """Sixteen bytes a line: where, in hexadecimal, as letters."""
    lines = []
    for at in range(0, len(payload), 16):
        part = payload[at : at + 16]
        letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{at:06x}  {part.hex(' '):<47}  {letters}")
    return "\n".join(lines)
