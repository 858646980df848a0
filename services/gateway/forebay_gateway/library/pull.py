"""A pull of one model on several backends at the same time, told to the client as one."""

from __future__ import annotations

import asyncio

from forebay.errors import ForebayError
from forebay_gateway.canonical.dialect import Json
from forebay_gateway.dialects.ollama.parts import as_line
from forebay_gateway.dialects.ollama.progress import PullProgress
from forebay_gateway.fleet import Backend
from forebay_gateway.library.errand import Errand, refused
from forebay_gateway.reply import Reply


class Pull:
    def __init__(self, reply: Reply, backends: list[Backend], *, is_streamed: bool) -> None:
        self._reply, self._is_streamed = reply, is_streamed
        self._progress = PullProgress([backend.name for backend in backends])
        self._telling = asyncio.Lock()
        self.failures: dict[str, ForebayError] = {}
        """By the backend's name."""

    async def run(self, errand: Errand, sent: bytes) -> None:
        """On one of them. Raises ConnectionError when the client has gone."""
        name = errand.backend.name
        try:
            async with errand.asking("POST", "/api/pull", sent) as answer:
                if answer.status != 200:
                    raise await refused(answer)
                async for line in errand.progress(answer):
                    await self._tell(self._progress.take(name, line.told))
        except ForebayError as error:
            self.failures[name] = error
            await self._tell(self._progress.fail(name))

    async def _tell(self, lines: list[Json]) -> None:
        """Holds its backend up while the client, or another backend's turn, takes its time."""
        if not lines or not self._is_streamed:
            return
        async with self._telling:
            await self._reply.begin_stream()
            await self._reply.write(b"".join(map(as_line, lines)))
