"""Responses in the background that another gateway runs, or ran: how they stand, by what is kept of them. What is wanted of
one is left as a note, which its gateway finds within a second or so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from forebay.clock import Clock
from forebay_gateway.dialects.responses.telling import UNFINISHED, telling_of
from forebay_gateway.keeping.contents import ContentStore, Kind, StoredContent
from forebay_gateway.keeping.signs import FOLLOWED_S, Note, Signs
from forebay_gateway.refused import NotKept

Json = dict[str, Any]

_LOOK_S = 0.25
_CANCEL_S = 3.0
_NOTHING_TOLD: Json = {"has_begun": False, "items": [], "is_open": False}
_GATEWAY_DIED = "The gateway that worked on this response has stopped. Send the request again."


class Elsewhere:
    def __init__(self, contents: ContentStore, clock: Clock) -> None:
        self._contents, self._clock = contents, clock

    async def as_it_stands(self, kept: StoredContent) -> Json:
        """The response of any record. Raises NotKept when it has just been deleted, StateUnavailable."""
        if not _is_under_way(kept):
            response: Json = kept.body["response"]
            return response
        response, _ = await self._look(kept)
        return response if response["status"] not in UNFINISHED else {**response, "output": []}

    async def cancel(self, kept: StoredContent) -> Json:
        """Gives it as it ended, or as it stands should its end take long. Raises NotKept, StateUnavailable."""
        response = await self.as_it_stands(kept)
        if response["status"] in UNFINISHED:
            await self._signs(kept).leave(Note.CANCEL)
        until = self._clock.monotonic() + _CANCEL_S
        while response["status"] in UNFINISHED and self._clock.monotonic() < until:
            await asyncio.sleep(_LOOK_S)
            response = await self.as_it_stands(kept)
        return response

    async def have_deleted(self, kept: StoredContent) -> None:
        """Before it is deleted here: else its end would bring it back. Raises StateUnavailable."""
        if _is_under_way(kept):
            await self._signs(kept).leave(Note.DELETE)

    async def follow(self, kept: StoredContent, after: int, idle_s: float) -> AsyncGenerator[bytes, None]:
        """Its events with greater numbers, as its gateway shows them, to the end; nothing each time that none came for
        `idle_s`. Raises NotKept, StateUnavailable."""
        noted_at = spoke_at = self._clock.monotonic()
        if _is_under_way(kept):
            await self._signs(kept).leave(Note.FOLLOW)
        while True:
            response, cuts = await self._look(kept)
            pieces = []
            for number, event in telling_of(response, cuts).events(after):
                pieces.append(event)
                after = number
            now = self._clock.monotonic()
            if pieces or now - spoke_at > idle_s:
                spoke_at = now
                yield b"".join(pieces)
            if response["status"] not in UNFINISHED:
                return
            if now - noted_at > FOLLOWED_S / 3:
                noted_at = now
                await self._signs(kept).leave(Note.FOLLOW)
            await asyncio.sleep(_LOOK_S)

    async def _look(self, kept: StoredContent) -> tuple[Json, Json]:
        """The response, and how it was told."""
        if not _is_under_way(kept):
            return kept.body["response"], kept.body["cuts"]
        shown = await self._signs(kept).read()
        queued = kept.body["response"]
        if shown is not None and shown.is_alive:
            if shown.response is not None and shown.cuts is not None:
                return shown.response, shown.cuts
            has_begun = shown.status == "in_progress"
            return {**queued, "status": shown.status}, {**_NOTHING_TOLD, "has_begun": has_begun}
        # Its signs go when it has ended, and its end was kept before.
        again = await self._contents.get(kept.user_id, Kind.RESPONSE, kept.id)
        if again is None:
            raise NotKept(f"Response with id '{kept.id}' not found.")
        if not _is_under_way(again):
            return again.body["response"], again.body["cuts"]
        response, cuts = queued, _NOTHING_TOLD
        if shown is not None and shown.response is not None and shown.cuts is not None:
            response, cuts = shown.response, shown.cuts
        return {**response, "status": "failed", "error": {"code": "server_error", "message": _GATEWAY_DIED}}, cuts

    def _signs(self, kept: StoredContent) -> Signs:
        return Signs(self._contents, self._clock, kept.user_id, kept.id)


def _is_under_way(kept: StoredContent) -> bool:
    """As far as its record says."""
    return kept.body["response"]["status"] in UNFINISHED
