"""The chat, the playground, and what was shared. A script holds the conversation, from the browser to a gateway; here are
the page that it lives on, and conversations as text for who only reads them."""

from __future__ import annotations

from urllib.parse import urlsplit

from aiohttp import web

from forebay_admin.chat.conversation import LISTED, Whole
from forebay_admin.chat.export import as_markdown, file_name, told_whole
from forebay_admin.chat.opening import Chat
from forebay_admin.web.chat.chat_view import entries, said
from forebay_admin.web.chat.files import file_answer
from forebay_admin.web.visit import Visit, Visits, demand_text, see_other


class ChatPages:
    def __init__(self, visits: Visits, chat: Chat) -> None:
        self._visits = visits
        self._chat = chat
        gateway = urlsplit(chat.gateway_url)
        self._connects = (f"{gateway.scheme}://{gateway.netloc}",)

    def routes(self) -> list[web.RouteDef]:
        return [
            self._visits.get("/chat", self._new),
            self._visits.get("/playground", self._playground),
            self._visits.get("/chat/{id}", self._show),
            self._visits.get("/chat/{id}/export", self._export),
            self._visits.post("/chat/{id}/delete", self._delete),
            self._visits.get("/share/{id}", self._shared),
            self._visits.get("/share/{id}/files/{digest}", self._shared_file),
        ]

    async def _new(self, visit: Visit) -> web.StreamResponse:
        if visit.query.get("mode") == "playground":
            return see_other("/playground")
        return await self._room(visit, None, is_playground=False)

    async def _playground(self, visit: Visit) -> web.StreamResponse:
        return await self._room(visit, None, is_playground=True)

    async def _show(self, visit: Visit) -> web.StreamResponse:
        return await self._room(visit, await self._chat.desk.read(visit.known, visit.part("id")), is_playground=False)

    async def _room(self, visit: Visit, whole: Whole | None, *, is_playground: bool) -> web.StreamResponse:
        text = demand_text(visit.query.get("q", ""), "What is looked for")
        after = demand_text(visit.query.get("after", ""), "The place in the list")
        found, has_more = await self._chat.desk.list_own(visit.known, text=text, after=after)
        here = whole.conversation if whole is not None else None
        return visit.page(
            "chat/chat.html",
            title=here.title if here is not None else "Playground" if is_playground else "Chat",
            connects=self._connects,
            entries=entries(found, here.id if here is not None else ""),
            next_after=found[-1].id if has_more and len(found) == LISTED else "",
            text=text,
            here=here,
            said=said(whole) if whole is not None else [],
            gateway_url=self._chat.gateway_url,
            searches_at=self._chat.search.host if self._chat.search is not None else "",
            is_playground=is_playground,
        )

    async def _export(self, visit: Visit) -> web.StreamResponse:
        whole = await self._chat.desk.read(visit.known, visit.part("id"))
        if visit.query.get("as") == "markdown":
            name = file_name(whole.conversation.title, "md")
            return _download(web.Response(text=as_markdown(whole), content_type="text/markdown"), name)
        return _download(web.json_response(told_whole(whole)), file_name(whole.conversation.title, "json"))

    async def _delete(self, visit: Visit) -> web.StreamResponse:
        await self._chat.desk.remove(visit.known, visit.part("id"))
        return visit.done("/chat", "The conversation is deleted.")

    async def _shared(self, visit: Visit) -> web.StreamResponse:
        shared = await self._chat.desk.shared(visit.part("id"))
        return visit.page(
            "chat/shared.html",
            title=shared.whole.conversation.title,
            user_name=shared.user_name,
            shared_at=shared.whole.conversation.shared_at,
            share_id=visit.part("id"),
            is_own=shared.whole.conversation.user_id == visit.known.user_id,
            here=shared.whole.conversation,
            said=said(shared.whole),
        )

    async def _shared_file(self, visit: Visit) -> web.StreamResponse:
        return file_answer(*await self._chat.desk.shared_file(visit.part("id"), visit.part("digest")))


def _download(response: web.Response, name: str) -> web.Response:
    response.headers["content-disposition"] = f'attachment; filename="{name}"'
    return response
