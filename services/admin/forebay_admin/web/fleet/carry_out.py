"""A form at work: it is done and the next page says so, or it was refused and its page is shown once more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from forebay.errors import AlreadyExists, BadInput, NotPossible
from forebay_admin.rest import failures
from forebay_admin.web.drafts import Show, refused
from forebay_admin.web.visit import Visit

_CORRECTABLE = (BadInput, AlreadyExists, NotPossible)
"""What is not there any more has a page of its own: so has the page that asked."""


async def carry_out(
    visit: Visit, form: str, act: Callable[[], Awaitable[str]], *, show: Show, path: str
) -> web.StreamResponse:
    """`act` tells what was done, for people. Raises ForebayError for what is not the form's fault."""
    try:
        said = await act()
    except _CORRECTABLE as error:
        return await show(visit, refused(form, visit.form, error, status=failures.status_of(error)))
    return visit.done(path, said)
