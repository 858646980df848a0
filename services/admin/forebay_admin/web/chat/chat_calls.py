"""What the chat's script calls: its conversations, and a key for each request that it sends to a gateway. JSON, on behalf of
whoever is signed in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import web

from forebay.errors import BadInput, NotFound
from forebay_admin.chat.at_once import AtOnce
from forebay_admin.chat.conversation import MOST_FILE_BYTES, MOST_MESSAGE_BYTES
from forebay_admin.chat.export import told_conversation, told_message, told_whole
from forebay_admin.chat.opening import Chat
from forebay_admin.rest.api import read_body
from forebay_admin.security.visitor import visitor_address
from forebay_admin.sign_in.origin import own_page
from forebay_admin.web.chat.files import file_answer
from forebay_admin.web.visit import Visit, Visits

_MOST_BODY_BYTES = MOST_MESSAGE_BYTES + 64 * 1024
LONGEST_BODY_S = 300.0
_PREFIX = "/chat/api"


class ChatCalls:
    def __init__(self, visits: Visits, chat: Chat) -> None:
        self._visits = visits
        self._chat = chat
        self._at_once = AtOnce()

    def routes(self) -> list[web.RouteDef]:
        api, one = self._visits.api, f"{_PREFIX}/conversations/{{id}}"
        return [
            api("GET", f"{_PREFIX}/models", self._models),
            api("POST", f"{_PREFIX}/key", self._key),
            api("POST", f"{_PREFIX}/search", self._search),
            api("GET", f"{_PREFIX}/conversations", self._list),
            api("POST", f"{_PREFIX}/conversations", self._begin),
            api("GET", one, self._read),
            api("PATCH", one, self._change),
            api("DELETE", one, self._remove),
            api("PUT", f"{one}/messages/{{message}}", self._say),
            api("POST", f"{one}/files", self._attach),
            api("GET", f"{one}/files/{{digest}}", self._file),
            api("POST", f"{one}/share", self._share),
            api("DELETE", f"{one}/share", self._share_no_more),
        ]

    async def _models(self, visit: Visit) -> web.StreamResponse:
        found = await self._chat.models.offered_to(visit.known)
        models = [
            {
                "name": offer.name,
                "capabilities": offer.capabilities,
                "context_length": offer.context_length,
                "description": offer.description,
                "is_well": offer.is_well,
                "talks": offer.talks,
            }
            for offer in found
        ]
        return _told({"models": models})

    async def _key(self, visit: Visit) -> web.StreamResponse:
        body = await _object(visit)
        model = body.get("model")
        if not isinstance(model, str):
            raise BadInput("Say which model it is for.")
        request = visit.request
        # Browsers name it with whatever changes something.
        origin = own_page(request.headers, self._visits.own_url)
        minted = await self._chat.keys.mint(visit.known, model=model, origin=origin, address=visitor_address(request))
        return _told({"value": minted.value, "expires_at": minted.expires_at, "key_id": minted.key_id})

    async def _search(self, visit: Visit) -> web.StreamResponse:
        if self._chat.search is None:
            raise NotFound("This Forebay has no web search: an operator names a search server (web_search_url).")
        body = await _object(visit)
        with self._at_once.one_more(visit.known.user_id):
            found = await self._chat.search.find(visit.known.user_id, body.get("query"))
        return _told({"sources": [{"title": one.title, "url": one.url, "text": one.text} for one in found]})

    async def _list(self, visit: Visit) -> web.StreamResponse:
        found, has_more = await self._chat.desk.list_own(
            visit.known, text=visit.query.get("q", ""), after=visit.query.get("after", "")
        )
        return _told({"conversations": [told_conversation(one) for one in found], "has_more": has_more})

    async def _begin(self, visit: Visit) -> web.StreamResponse:
        made = await self._chat.desk.begin(visit.known, await _object(visit))
        return _told({**told_conversation(made), "settings": made.settings}, status=201)

    async def _read(self, visit: Visit) -> web.StreamResponse:
        return _told(told_whole(await self._chat.desk.read(visit.known, visit.part("id"))))

    async def _change(self, visit: Visit) -> web.StreamResponse:
        after = await self._chat.desk.change(visit.known, visit.part("id"), await _object(visit))
        return _told({**told_conversation(after), "settings": after.settings})

    async def _remove(self, visit: Visit) -> web.StreamResponse:
        await self._chat.desk.remove(visit.known, visit.part("id"))
        return web.Response(status=204)

    async def _say(self, visit: Visit) -> web.StreamResponse:
        with self._at_once.one_more(visit.known.user_id):
            told = await _object(visit)
            kept = await self._chat.desk.say(visit.known, visit.part("id"), visit.part("message"), told)
        return _told(told_message(kept))

    async def _attach(self, visit: Visit) -> web.StreamResponse:
        with self._at_once.one_more(visit.known.user_id):
            body = await _bytes(visit.request)
            made = await self._chat.desk.attach(visit.known, visit.part("id"), visit.request.content_type, body)
        return _told({"digest": made.digest, "kind": made.kind, "bytes": made.size_bytes}, status=201)

    async def _file(self, visit: Visit) -> web.StreamResponse:
        return file_answer(*await self._chat.desk.file(visit.known, visit.part("id"), visit.part("digest")))

    async def _share(self, visit: Visit) -> web.StreamResponse:
        share_id = await self._chat.desk.share(visit.known, visit.part("id"))
        return _told({"share_id": share_id, "url": f"{self._visits.own_url}/share/{share_id}"})

    async def _share_no_more(self, visit: Visit) -> web.StreamResponse:
        await self._chat.desk.share_no_more(visit.known, visit.part("id"))
        return web.Response(status=204)


async def _object(visit: Visit) -> dict[str, Any]:
    """Raises BadInput."""
    async with _in_time():
        body = await read_body(visit.request, _MOST_BODY_BYTES)
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadInput(f"The body is no JSON: {error}.") from error
    if not isinstance(told, dict):
        raise BadInput("The body is an object.")
    return told


async def _bytes(request: web.Request) -> bytes:
    """Raises BadInput before more than a file may have was taken."""
    too_large = BadInput(f"A file has at most {MOST_FILE_BYTES // 1024**2} MiB.")
    if (request.content_length or 0) > MOST_FILE_BYTES:
        raise too_large
    body = bytearray()
    try:
        async with _in_time():
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > MOST_FILE_BYTES:
                    raise too_large
    except (web.RequestPayloadError, ConnectionError) as error:
        raise BadInput("The file broke off.") from error
    return bytes(body)


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    """Whoever is gone without a word takes the place of others no longer than that. Raises BadInput."""
    try:
        async with asyncio.timeout(LONGEST_BODY_S):
            yield
    except TimeoutError as error:
        raise BadInput(f"This took more than {LONGEST_BODY_S:.0f} s to come, and was not kept.") from error


def _told(answer: object, *, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(answer), status=status, content_type="application/json")
