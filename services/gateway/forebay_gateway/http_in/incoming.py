"""A request as far as answering it needs one, whichever way it came in. Its head is read by then (callers.call.Call)."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from forebay_gateway.canonical.upload import Upload
from forebay_gateway.held_body import HeldBody


class Incoming(Protocol):
    @property
    def content_length(self) -> int | None:
        """In bytes, as its head says it; None: it does not say."""
        ...

    def read_now(self, held: HeldBody, *, most_bytes: int) -> bytes | None:
        """Its body, if all of it is there and fits into memory. None: it has to be waited for, by `read`, which then refuses
        it too, should there be a reason."""
        ...

    async def read(self, held: HeldBody, *, most_bytes: int, idle_s: float) -> bytes:
        """Its body, once. Raises BodyTooLarge, BodyStalled, BadInput, and Refused when memory and disk are spent."""
        ...

    def reading_upload(
        self, *, most_bytes: int, idle_s: float, directory: Path | None
    ) -> AbstractAsyncContextManager[Upload]:
        """Its body as a form. Raises BadInput, BodyTooLarge, BodyStalled."""
        ...
