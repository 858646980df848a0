"""What stays true on an open page: server-sent events with pieces of pages, made once for all who may see the same.

A topic's piece is made while somebody looks at it and at no other time, by the calls of one of those who look; whoever is
slow misses pieces and gets the newest. A window that is open is no use of a session, and what its session may no longer see
ends it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from aiohttp import web

from forebay.client_addresses import neighbourhood
from forebay.errors import BadInput, ForebayError, NotAllowed
from forebay_admin.people.roles import Reach
from forebay_admin.security.visitor import visitor_address
from forebay_admin.web.visit import Visit, Visits

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""How often it is looked whether who looks still may; and after so long without news a comment is sent, so that nothing
between here and the browser takes the stream for dead."""
_GATHER_S = 0.2
"""What comes within so long of several topics goes out together."""
_MOST_TOPICS = 12
_MOST_PER_SESSION = 8
"""Streams that one session may have open: windows that somebody forgot."""
_MOST_PER_ADDRESS, _MOST_OF_NOBODY = 50, 1000
"""And those who are not signed in: from one address, and all of them together."""
_RETRY_MS = 3_000


@dataclass(frozen=True, slots=True)
class Topic:
    name: str
    make: Callable[[Visit, str], Awaitable[str]]
    """HTML; the text is what follows the name and a colon in the address: `node:gpu-1`."""
    calls: tuple[str, ...] = ()
    """The operators' calls that are made for it; without any it is everybody's."""
    every_s: float = 2.0
    has_argument: bool = False
    """Without, a name with a text after it is none: each would be made for itself."""


@dataclass(slots=True)
class _Listener:
    visit: Visit
    topics: dict[str, Topic]
    news: dict[str, str] = field(default_factory=dict)
    """The newest piece that was not sent, by topic."""
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, name: str, text: str) -> None:
        self.news[name] = text
        self.woken.set()


@dataclass(slots=True)
class _Group:
    """Those who see the same of one topic."""

    topic: Topic
    name: str
    listeners: list[_Listener] = field(default_factory=list)
    newest: str = ""
    task: asyncio.Task[None] | None = None


class Live:
    def __init__(self, visits: Visits) -> None:
        self._visits = visits
        self._topics: dict[str, Topic] = {}
        self._groups: dict[tuple[str, str], _Group] = {}
        self._open: dict[str, int] = {}

    def add(self, topics: Sequence[Topic]) -> None:
        for topic in topics:
            if topic.name in self._topics:
                raise ValueError(topic.name)
            self._topics[topic.name] = topic

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/live", self._serve)]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        visit = self._visits.visit(request, is_left_open=True)
        try:
            listener = _Listener(visit, self._asked(visit, request.query.get("topics", "")))
        except ForebayError as error:
            return web.json_response({"error": error.message}, status=403 if isinstance(error, NotAllowed) else 400)
        whose = _counted_as(visit)
        if any(self._open.get(who, 0) >= most for who, most in whose.items()):
            # 204 tells an EventSource not to come back by itself.
            return web.Response(status=204)
        for who in whose:
            self._open[who] = self._open.get(who, 0) + 1
        try:
            return await self._stream(request, listener)
        finally:
            self._leave(listener)
            for who in whose:
                self._open[who] -= 1
                if not self._open[who]:
                    del self._open[who]

    def _asked(self, visit: Visit, text: str) -> dict[str, Topic]:
        names = [name for name in dict.fromkeys(text.split(",")) if name]
        if not 0 < len(names) <= _MOST_TOPICS:
            raise BadInput(f"Name what is wanted, {_MOST_TOPICS} at most: /live?topics=status")
        found = {}
        for name in names:
            title, colon, _ = name.partition(":")
            topic = self._topics.get(title)
            if topic is None or (colon and not topic.has_argument) or len(name) > 200 or not name.isprintable():
                raise BadInput(f"There is nothing live called {name[:60]!r}.")
            if not all(visit.may(call) for call in topic.calls):
                raise NotAllowed("This is not for you to see.")
            found[name] = topic
        return found

    async def _stream(self, request: web.Request, listener: _Listener) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "x-accel-buffering": "no"})
        await response.prepare(request)
        with suppress(ConnectionError):
            await response.write(f"retry: {_RETRY_MS}\n\n".encode())
            for name, topic in listener.topics.items():
                self._join(listener, name, topic)
            asked, looked_at = tuple(listener.topics.values()), self._visits.clock.monotonic()
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await listener.woken.wait()
                        await asyncio.sleep(_GATHER_S)
                listener.woken.clear()
                now = self._visits.clock.monotonic()
                if now - looked_at >= LOOK_S:
                    looked_at = now
                    if not all(_is_let_in(listener, topic) for topic in asked):
                        await response.write(b"event: ended\ndata: \n\n")
                        break
                news, listener.news = listener.news, {}
                await response.write(b"".join(_event(*piece) for piece in news.items()) or b":\n\n")
        return response

    def _join(self, listener: _Listener, name: str, topic: Topic) -> None:
        key = (name, _scope(listener.visit, topic))
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(topic, name)
            group.task = asyncio.create_task(self._keep(key, group), name=f"live-{topic.name}")
        group.listeners.append(listener)
        if group.newest:
            listener.tell(name, group.newest)

    def _leave(self, listener: _Listener) -> None:
        for name, topic in listener.topics.items():
            key = (name, _scope(listener.visit, topic))
            group = self._groups.get(key)
            if group is None or listener not in group.listeners:
                continue
            group.listeners.remove(listener)
            if not group.listeners:
                del self._groups[key]
                if group.task is not None:
                    group.task.cancel()

    async def _keep(self, key: tuple[str, str], group: _Group) -> None:
        argument = group.name.partition(":")[2]
        while True:
            # The first was on the page when it came. All topics keep one beat, so that their pieces go out together.
            every_s = group.topic.every_s
            await asyncio.sleep(every_s - self._visits.clock.monotonic() % every_s)
            # By whom nothing was changed since they came: who may more now would show it to all, and who may less nothing.
            visit = next((one.visit for one in group.listeners if _is_let_in(one, group.topic)), None)
            if visit is None:
                continue
            visit.now = self._visits.clock.now()
            visit.unknown.clear()
            try:
                text = await group.topic.make(visit, argument)
            except ForebayError as error:
                log.debug("piece not made", extra={"action": "live_not_made", "topic": key[0], "why": error.message})
                continue  # what is shown gets old, and looks it
            except Exception:
                log.exception("piece not made", extra={"action": "live_failed", "topic": key[0]})
                continue
            if text == group.newest:
                continue
            group.newest = text
            for listener in group.listeners:
                listener.tell(group.name, text)

    async def aclose(self) -> None:
        tasks = [group.task for group in self._groups.values() if group.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _counted_as(visit: Visit) -> dict[str, int]:
    """What a stream counts as, and how many of each may be open."""
    if visit.actor is not None:
        return {visit.actor.key_id: _MOST_PER_SESSION}
    return {f"from {neighbourhood(visitor_address(visit.request))}": _MOST_PER_ADDRESS, "": _MOST_OF_NOBODY}


def _is_let_in(listener: _Listener, topic: Topic) -> bool:
    return all(listener.visit.is_still_let_in(call) for call in topic.calls)


def _scope(visit: Visit, topic: Topic) -> str:
    """Who may see all of something sees the same as others who may; their own things are nobody else's."""
    if visit.actor is None or not topic.calls:
        return ""
    if all(visit.reach(call) is Reach.ALL for call in topic.calls):
        return repr(visit.actor.rights)  # by which pieces differ in what they offer
    return visit.actor.user_id


def _event(name: str, text: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in text.splitlines())
    return f"event: {name}\n{lines}\n".encode()
