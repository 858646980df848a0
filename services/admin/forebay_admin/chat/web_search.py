"""Looking something up in the web for a question of the chat, by the search server that an operator named: SearXNG, or one
that answers as its JSON API does. The pages that it finds are not fetched; what is known of them is what it says. Putting
that before a prompt is the chat page's."""

from __future__ import annotations

import logging

import aiohttp
from yarl import URL

from forebay.clock import Clock
from forebay.errors import Unavailable
from forebay_admin.chat.found_sources import Source, demand_query, sources_of
from forebay_admin.sign_in.pace import Pace

log = logging.getLogger(__name__)

MOST_ANSWER_BYTES = 1024**2
LONGEST_S = 8.0
_AT_ONCE, _EVERY_S = 6, 10.0


class SearchFailed(Unavailable):
    """The web search does not answer as it should. Ask again in a moment, or switch it off."""


class WebSearch:
    def __init__(self, url: str, key: str, clock: Clock) -> None:
        """`key`: sent as a bearer; empty: none is."""
        self._url = URL(url)
        self._headers = {"accept": "application/json", "user-agent": "forebay"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        self._clock = clock
        self._pace = Pace(at_once=_AT_ONCE, every_s=_EVERY_S)

    @property
    def host(self) -> str:
        """Who is told what people look for."""
        return self._url.host or ""

    async def find(self, user_id: str, query: object) -> tuple[Source, ...]:
        """Raises BadInput, TooOften, SearchFailed."""
        words = demand_query(query)
        self._pace.demand(user_id, self._clock.monotonic(), "you")
        try:
            return sources_of(await self._ask(words))
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            why = f"it took more than {LONGEST_S:g} s" if isinstance(error, TimeoutError) else str(error)
            log.warning(
                "the web search failed", extra={"action": "web_search_failed", "host": self.host, "why": why[:300]}
            )
            raise SearchFailed from error

    async def _ask(self, words: str) -> bytes:
        """Raises ValueError for an answer that is none."""
        timeout = aiohttp.ClientTimeout(total=LONGEST_S)
        url = self._url.update_query(q=words, format="json")
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(url, headers=self._headers, allow_redirects=False) as answer,
        ):
            if answer.status == 403:
                raise ValueError("it answers 403, as SearXNG does where `json` is not among its search.formats")
            if answer.status != 200:
                raise ValueError(f"it answers {answer.status}")
            held = bytearray()
            async for piece in answer.content.iter_any():
                held += piece
                if len(held) > MOST_ANSWER_BYTES:
                    raise ValueError(f"its answer has more than {MOST_ANSWER_BYTES} bytes")
            return bytes(held)
