"""What gateways leave for one another about a response in the background: the one that runs it shows that it lives, and how
far the answer is when somebody elsewhere follows it; the others leave notes on what is wanted of it.

Each thing has one writer. All of them go of themselves when nobody renews them."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from forebay.clock import Clock
from forebay_gateway.keeping.contents import ContentStore, Kind, StoredContent

Json = dict[str, Any]

_REST_S = 60.0
"""What a gateway that fell silent has shown last can be read for so long."""
FOLLOWED_S = 5.0
"""So long a note that somebody follows holds."""
_WANTED_S = 120.0
_MOST_NOTES = 10


class Note(StrEnum):
    CANCEL = "cancel"
    DELETE = "delete"
    FOLLOW = "follow"


@dataclass(frozen=True, slots=True)
class Shown:
    is_alive: bool
    status: str
    """Queued or in_progress."""
    response: Json | None
    """As far as it has come, and how it was told; None: nobody followed it."""
    cuts: Json | None


class Signs:
    """Of one response."""

    def __init__(self, contents: ContentStore, clock: Clock, user_id: str, response_id: str) -> None:
        self._contents, self._clock = contents, clock
        self._user_id, self._id = user_id, response_id

    async def show(self, status: str, silent_s: float, progress: tuple[Json, Json] | None = None) -> None:
        """That its gateway lives, and will have shown so again within `silent_s`. Raises as ContentStore.put."""
        until_us = self._moment_us(silent_s)
        body: Json = {"alive_until_us": until_us, "status": status}
        if progress is not None:
            body["response"], body["cuts"] = progress
        await self._put(self._id, body, until_us + int(_REST_S * 1e6))

    async def read(self) -> Shown | None:
        """Raises StateUnavailable."""
        kept = await self._contents.get(self._user_id, Kind.BACKGROUND, self._id)
        if kept is None:
            return None
        body = kept.body
        is_alive = body["alive_until_us"] > self._moment_us()
        return Shown(is_alive, body["status"], body.get("response"), body.get("cuts"))

    async def leave(self, note: Note) -> None:
        """Raises as ContentStore.put."""
        holds_s = FOLLOWED_S if note is Note.FOLLOW else _WANTED_S
        await self._put(self._named(note), {"note": note}, self._moment_us(holds_s), parent_id=self._id)

    async def notes(self) -> AbstractSet[Note]:
        """Raises StateUnavailable."""
        page = await self._contents.list(self._user_id, Kind.BACKGROUND, self._id, limit=_MOST_NOTES)
        now_us = self._moment_us()
        return {Note(kept.body["note"]) for kept in page.contents if (kept.expires_at_us or 0) > now_us}

    async def clear(self, notes: AbstractSet[Note]) -> None:
        """Raises StateUnavailable."""
        for id in (self._id, *map(self._named, notes)):
            await self._contents.delete(self._user_id, Kind.BACKGROUND, id)

    async def _put(self, id: str, body: Json, expires_at_us: int, parent_id: str = "") -> None:
        await self._contents.put(
            StoredContent(
                Kind.BACKGROUND,
                id,
                self._user_id,
                self._moment_us(),
                body,
                parent_id=parent_id,
                expires_at_us=expires_at_us,
            )
        )

    def _named(self, note: Note) -> str:
        return f"{note}_{self._id}"

    def _moment_us(self, from_now_s: float = 0.0) -> int:
        return int((self._clock.now() + from_now_s) * 1e6)
