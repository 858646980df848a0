"""`/me/export`: all that is kept about one, as one file of JSON: no secrets, which nobody has."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson
from aiohttp import web

from forebay.errors import ForebayError, NotFound
from forebay.wire.v1 import admin_pb2, identity_pb2, key_terms_pb2, notifications_pb2, prices_pb2
from forebay.wire.v1 import usage_queries_pb2 as usage
from forebay_admin.chat.conversation import Conversation, Whole
from forebay_admin.chat.export import told_whole
from forebay_admin.json_form import plain
from forebay_admin.people.access import Actor
from forebay_admin.web.policy import HEADERS
from forebay_admin.web.visit import Visit, Visits

log = logging.getLogger(__name__)

PATH = "/me/export"
_YEARS_S = 5 * 365 * 86_400


class KeepsConversations(Protocol):
    async def list_own(self, actor: Actor, *, text: str = "", after: str = "") -> tuple[list[Conversation], bool]: ...
    async def read(self, actor: Actor, id: str) -> Whole: ...


class ExportPages:
    def __init__(self, visits: Visits, conversations: KeepsConversations) -> None:
        self._visits = visits
        self._conversations = conversations

    def routes(self) -> list[web.RouteDef]:
        return [self._visits.get(PATH, self._page), self._visits.get(f"{PATH}.json", self._file)]

    async def _page(self, visit: Visit) -> web.StreamResponse:
        return visit.page("personal/export.html", title="Your data")

    async def _file(self, visit: Visit) -> web.StreamResponse:
        """Piece by piece, since conversations can be many and long."""
        told: dict[str, Any] = {"exported_at": _iso(visit.now), "user": visit.user}
        for name, (call, message) in _questions(visit.user, visit.now).items():
            told[name] = await _told(visit, call, message)
        events = (told["events"] or {}).get("events", ())
        told["events"] = [one for one in events if one["event"]["user_name"] == visit.user]
        file = f"forebay-{_iso(visit.now)[:10]}.json"
        response = web.StreamResponse(
            headers={
                **HEADERS,
                "content-type": "application/json",
                "content-disposition": f'attachment; filename="{file}"',
            }
        )
        await response.prepare(visit.request)
        try:
            await response.write(orjson.dumps(told).removesuffix(b"}") + b',"conversations":[')
            comma = b""
            async for whole in self._own_conversations(visit.known):
                await response.write(comma + orjson.dumps(told_whole(whole), default=str))
                comma = b","
            await response.write(b"]}")
        except ForebayError as error:
            # Nobody takes half a file for a whole one.
            log.warning("export broken off", extra={"action": "export_broken_off", "why": error.message})
            if visit.request.transport is not None:
                visit.request.transport.abort()
        return response

    async def _own_conversations(self, actor: Actor) -> AsyncIterator[Whole]:
        after, more = "", True
        while more:
            found, more = await self._conversations.list_own(actor, after=after)
            for one in found:
                with suppress(NotFound):  # it was removed in this moment
                    yield await self._conversations.read(actor, one.id)
                after = one.id
            more = more and bool(found)


async def _told(visit: Visit, call: str, message: Any) -> Any:
    """In the form that JSON has it elsewhere; None where there is nothing, or it is not known now."""
    try:
        answer = await visit.ask_or_none(call, message)
    except NotFound:
        return None
    return plain(answer) if answer is not None else None


def _questions(user: str, now: float) -> dict[str, tuple[str, Any]]:
    by = (usage.USAGE_COLUMN_MODEL, usage.USAGE_COLUMN_KEY)
    used = usage.QueryUsageRequest(
        from_us=round((now - _YEARS_S) * 1_000_000),
        user=user,
        by=by,
        bucket=usage.USAGE_BUCKET_MONTH,
        limit=10_000,
    )
    return {
        "identity": ("ShowUser", identity_pb2.ShowUserRequest(name=user)),
        "rights": ("WhoAmI", identity_pb2.WhoAmIRequest()),
        "keys": ("ListKeys", admin_pb2.ListKeysRequest(user=user, include_revoked=True)),
        "signing_keys": ("ListSigningKeys", admin_pb2.ListSigningKeysRequest(user=user)),
        "tokens": ("ListTokens", identity_pb2.ListTokensRequest(user=user, include_revoked=True)),
        "sessions": ("ListSessions", identity_pb2.ListSessionsRequest(user=user)),
        "limits": ("ShowQuota", admin_pb2.ShowQuotaRequest()),
        "balance": ("ShowBalance", prices_pb2.ShowBalanceRequest(limit=500)),
        "quota_requests": (
            "ListQuotaRequests",
            key_terms_pb2.ListQuotaRequestsRequest(user=user, include_decided=True),
        ),
        "usage_by_month": ("QueryUsage", used),
        "events": ("ListEvents", notifications_pb2.ListEventsRequest(limit=500)),
    }


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
