"""`/me/sessions`: where one is signed in, and the narrow tokens that programs have."""

from __future__ import annotations

from aiohttp import web

from forebay.errors import NotFound
from forebay.wire.v1 import identity_pb2
from forebay_admin.people.permissions import GROUPS
from forebay_admin.web.drafts import NO_DRAFTS, Drafts, demand_sure, sent
from forebay_admin.web.personal.sessions_view import (
    TOKEN_LIVES,
    grantable,
    sessions_view,
    token_of,
    tokens_view,
)
from forebay_admin.web.visit import Visit, Visits, see_other

PATH = "/me/sessions"


class SessionsPages:
    def __init__(self, visits: Visits) -> None:
        self._visits = visits

    def routes(self) -> list[web.RouteDef]:
        post = self._visits.post
        return [
            self._visits.get(PATH, self._page, call="ListSessions"),
            post(f"{PATH}/end", self._end, call="EndSession"),
            post(f"{PATH}/end-others", sent("others", self._end_others, self._show, "sure"), call="EndSession"),
            post(f"{PATH}/tokens", sent("token", self._make, self._show), call="CreateToken"),
            post(f"{PATH}/tokens/revoke", self._revoke, call="RevokeToken"),
        ]

    async def _page(self, visit: Visit) -> web.StreamResponse:
        return await self._show(visit, NO_DRAFTS)

    async def _show(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        tokens = None
        if visit.may("ListTokens"):
            told = await visit.ask("ListTokens", identity_pb2.ListTokensRequest(user=visit.user))
            tokens = tokens_view(told.tokens, visit.now)
        sessions = sessions_view(await self._sessions(visit))
        return visit.page(
            "personal/sessions.html",
            title="Sessions and tokens",
            status=drafts.status,
            drafts=drafts,
            sessions=sessions,
            others=sum(not session.is_this for session in sessions),
            tokens=tokens,
            lives=TOKEN_LIVES,
            permissions=grantable(GROUPS, visit.reach),
        )

    async def _end(self, visit: Visit) -> web.StreamResponse:
        session = next((one for one in await self._sessions(visit) if one.id == visit.form.get("id")), None)
        if session is None:
            raise NotFound("There is no such session of yours any more.")
        await visit.ask("EndSession", identity_pb2.EndSessionRequest(id=session.id))
        return see_other("/sign-in") if session.is_this else visit.done(PATH, "The session has ended.")

    async def _end_others(self, visit: Visit) -> web.StreamResponse:
        demand_sure(visit.form)
        others = [one for one in await self._sessions(visit) if not one.is_this]
        for one in others:
            await visit.ask("EndSession", identity_pb2.EndSessionRequest(id=one.id))
        return visit.done(PATH, f"Sessions that have ended: {len(others)}.")

    async def _make(self, visit: Visit) -> web.StreamResponse:
        made = await visit.ask("CreateToken", token_of(visit.form, visit.user))
        return visit.page(
            "personal/token_secret.html",
            title="Your new token",
            token=tokens_view([made.token], visit.now)[0],
            secret=made.secret,
            own_url=self._visits.own_url,
        )

    async def _revoke(self, visit: Visit) -> web.StreamResponse:
        told = await visit.ask("ListTokens", identity_pb2.ListTokensRequest(user=visit.user))
        token = next((one for one in told.tokens if one.id == visit.form.get("id")), None)
        if token is None:
            raise NotFound("There is no such token of yours any more.")
        await visit.ask("RevokeToken", identity_pb2.RevokeTokenRequest(id=token.id))
        return visit.done(PATH, "The token is revoked.")

    async def _sessions(self, visit: Visit) -> list[identity_pb2.Session]:
        told = await visit.ask("ListSessions", identity_pb2.ListSessionsRequest(user=visit.user))
        return list(told.sessions)
