"""`/me/preferences`: how pages look to one, and one's password."""

from __future__ import annotations

from aiohttp import web

from forebay.errors import NotPossible
from forebay.wire.v1 import identity_pb2
from forebay_admin.sign_in.pages import THEME_COOKIE, THEMES
from forebay_admin.sign_in.passwords import BadPassword
from forebay_admin.web.drafts import NO_DRAFTS, Drafts, sent
from forebay_admin.web.forms import WrongField
from forebay_admin.web.visit import Visit, Visits

PATH = "/me/preferences"
_YEAR_S = 365 * 86_400


class PreferencesPages:
    def __init__(self, visits: Visits) -> None:
        self._visits = visits

    def routes(self) -> list[web.RouteDef]:
        password = sent("password", self._password, self._show, "old")
        return [
            self._visits.get(PATH, self._page),
            self._visits.post(f"{PATH}/theme", sent("theme", self._theme, self._show, "theme")),
            self._visits.post(f"{PATH}/password", password, call="ChangePassword"),
        ]

    async def _page(self, visit: Visit) -> web.StreamResponse:
        return await self._show(visit, NO_DRAFTS)

    async def _show(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        told = await visit.ask_or_none("ShowUser", identity_pb2.ShowUserRequest(name=visit.user))
        return visit.page(
            "personal/preferences.html",
            title="Preferences",
            status=drafts.status,
            drafts=drafts,
            user=told.user if told is not None else None,
        )

    async def _theme(self, visit: Visit) -> web.StreamResponse:
        theme = visit.form.get("theme")
        if theme not in ("", *THEMES):
            raise WrongField("theme", "Choose light, dark, or what the system says.")
        response = visit.done(PATH, "It is as you chose, in this browser.")
        if not theme:
            response.del_cookie(THEME_COOKIE, path="/")
        else:
            # Scripts read and write it too, so it is not for servers alone.
            response.set_cookie(
                THEME_COOKIE, theme, max_age=_YEAR_S, path="/", secure=self._visits.is_secure, samesite="Lax"
            )
        return response

    async def _password(self, visit: Visit) -> web.StreamResponse:
        old, new = visit.form.raw("old"), visit.form.raw("new")
        if not old or not new:
            raise WrongField("old" if not old else "new", "This is missing.")
        if new != visit.form.raw("again"):
            raise WrongField("again", "It is not the same as the new password.")
        try:
            request = identity_pb2.ChangePasswordRequest(old_password=old, new_password=new)
            done = await visit.ask("ChangePassword", request)
        except NotPossible as error:
            raise WrongField("old", error.message) from error
        except BadPassword as error:
            raise WrongField("new", error.message) from error
        return visit.done(PATH, f"Your password is changed; other sessions that ended: {done.ended_sessions}.")
