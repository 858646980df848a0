"""A form at work: it is done and the next page says so, or it was refused and its page is shown once more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from forebay_admin.web.fleet.again import REFUSALS, Again, again
from forebay_admin.web.visit import Visit


async def carry_out(
    visit: Visit,
    form: str,
    act: Callable[[], Awaitable[str]],
    *,
    show: Callable[[Visit, Again], Awaitable[web.StreamResponse]],
    path: str,
) -> web.StreamResponse:
    """`act` tells what was done, for people. Raises ForebayError for what is not the form's fault."""
    try:
        said = await act()
    except REFUSALS as error:
        return await show(visit, again(form, visit.form, error))
    return visit.done(path, said)
