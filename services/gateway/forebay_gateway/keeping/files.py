"""A user's files: put, found, listed, read and deleted. Their bytes pass in pieces and are never here as a whole."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

from forebay.clock import Clock
from forebay_gateway.dialects.openai.file import FileWish
from forebay_gateway.keeping.contents import PIECE_BYTES, ContentPage, ContentStore, Kind, StoredContent
from forebay_gateway.refused import BadField, NotKept

_PAGE = 100
"""The most that admin tells at once."""


class Files:
    def __init__(self, contents: ContentStore, clock: Clock) -> None:
        self._contents = contents
        self._clock = clock

    async def create(self, user_id: str, wish: FileWish) -> StoredContent:
        """Raises BadField when it is empty, BodyTooLarge, NotPossible."""
        file = wish.file
        size = (await asyncio.to_thread(file.path.stat)).st_size
        if size == 0:
            raise BadField(f"The file {file.filename[:80]!r} is empty.", param="file", code="invalid_value")
        now_us = int(self._clock.now() * 1e6)
        return await self._contents.upload(
            StoredContent(
                Kind.FILE,
                f"file-{secrets.token_hex(12)}",
                user_id,
                now_us,
                {"filename": file.filename, "purpose": wish.purpose},
                expires_at_us=now_us + wish.keep_s * 1_000_000 if wish.keep_s is not None else None,
                blob_bytes=size,
            ),
            _pieces_of(file.path),
        )

    async def find(self, user_id: str, id: str, *, param: str = "id") -> StoredContent:
        """Raises NotKept."""
        found = await self._contents.get(user_id, Kind.FILE, id)
        if found is None:
            raise no_such_file(id, param)
        return found

    async def page(self, user_id: str, *, limit: int, after: str, descending: bool, purpose: str | None) -> ContentPage:
        """`purpose`: None for any. Raises NotFound when `after` is not there."""
        found: list[StoredContent] = []
        has_more = True
        while has_more and len(found) <= limit:
            wanted = _PAGE if purpose is not None else min(_PAGE, limit + 1 - len(found))
            page = await self._contents.list(user_id, Kind.FILE, "", limit=wanted, after=after, descending=descending)
            found += [file for file in page.contents if purpose in (None, file.body["purpose"])]
            has_more = page.has_more and bool(page.contents)
            if has_more:
                after = page.contents[-1].id
        return ContentPage(found[:limit], len(found) > limit)

    def read(self, file: StoredContent) -> AsyncGenerator[bytes, None]:
        """Raises NotFound when it was deleted meanwhile."""
        return self._contents.download(file.user_id, Kind.FILE, file.id)

    async def delete(self, user_id: str, id: str) -> None:
        """Raises NotKept."""
        if not await self._contents.delete(user_id, Kind.FILE, id):
            raise no_such_file(id)


def no_such_file(id: str, param: str = "id") -> NotKept:
    return NotKept(f"No such File object: {id[:80]}", param=param)


async def _pieces_of(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            yield piece
