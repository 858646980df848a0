"""`/request-access`: how who is no user yet asks to be one."""

from __future__ import annotations

from typing import Protocol

from aiohttp import web

from forebay.errors import BadInput, NotPossible
from forebay_admin.rest.failures import status_of
from forebay_admin.security.visitor import visitor_address
from forebay_admin.sign_in.access_requests import LONGEST_MAIL, LONGEST_NAME, LONGEST_REASON, WrongAnswer
from forebay_admin.sign_in.pace import TooOften
from forebay_admin.web.visit import Visit, Visits

_PATH = "/request-access"


class TakesRequests(Protocol):
    async def ask(self, *, name: str, mail: str, reason: str, address: str) -> None: ...


class AccessPages:
    def __init__(self, visits: Visits, desk: TakesRequests) -> None:
        self._visits = visits
        self._desk = desk

    def routes(self) -> list[web.RouteDef]:
        return [
            self._visits.get(_PATH, self._form, is_public=True),
            self._visits.post(_PATH, self._ask, is_public=True),
        ]

    async def _form(self, visit: Visit) -> web.StreamResponse:
        return _page(visit)

    async def _ask(self, visit: Visit) -> web.StreamResponse:
        name, mail, reason = (visit.form.get(field) for field in ("name", "mail", "reason"))
        try:
            await self._desk.ask(name=name, mail=mail, reason=reason, address=visitor_address(visit.request))
        except (BadInput, NotPossible) as error:
            return _page(visit, error)
        return visit.done(_PATH, "Your request is kept. Whoever decides about it writes to your mail address.")


def _page(visit: Visit, error: BadInput | NotPossible | None = None) -> web.Response:
    response = visit.page(
        "status/request_access.html",
        title="Ask for access",
        status=_status(error),
        said=visit.form.values(),
        problem=error.message if error is not None and not isinstance(error, WrongAnswer) else "",
        errors={error.field: error.message} if isinstance(error, WrongAnswer) else {},
        longest={"name": LONGEST_NAME, "mail": LONGEST_MAIL, "reason": LONGEST_REASON},
    )
    if isinstance(error, TooOften):
        response.headers["retry-after"] = str(max(1, round(error.retry_after_s or 60.0)))
    return response


def _status(error: BadInput | NotPossible | None) -> int:
    if error is None:
        return 200
    return 429 if isinstance(error, TooOften) else status_of(error)
