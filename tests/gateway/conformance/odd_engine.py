"""An engine of raw bytes: it writes down exactly what it was sent, and answers with whatever bytes it is told to."""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
import time
from types import TracebackType

from tests.gateway.house import MODEL

_LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]+)\r\n", re.IGNORECASE)
CHUNK = {"model": MODEL, "choices": [{"index": 0, "delta": {"content": "x" * 32_000}, "finish_reason": None}]}
EVENT = b"data: " + json.dumps(CHUNK).encode() + b"\n\n"


class OddEngine:
    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes]] = []
        """Head and body of each request."""
        self.too_much: list[bytes] = []
        """What came behind a request before it was answered."""
        self.answer: list[bytes] = []
        """Pieces of the answer, after which the connection is closed, unless it `keeps_open`."""
        self.keeps_open = False
        self.may_end = asyncio.Event()
        """Before the last piece."""
        self.floods = 0
        """Events of a stream that it sends as fast as they are taken, instead."""
        self.flooded = 0
        """How many of them were taken."""
        self.stuck_since = math.inf
        """When the other side stopped taking, on the monotonic clock."""
        self.url = ""
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> OddEngine:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.bind(("127.0.0.1", 0))
        # What the kernel holds of an answer is what an engine gets rid of though nobody reads.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        self._server = await asyncio.start_server(self._talk, sock=listening)
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    @property
    def talks(self) -> int:
        """Connections that are open."""
        return len(self._talks)

    def forget(self) -> None:
        self.asked.clear()
        self.too_much.clear()
        self.answer = []
        self.keeps_open = False
        self.may_end.set()
        self.floods = self.flooded = 0
        self.stuck_since = math.inf

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        try:
            while True:
                await self._serve(reader, writer)
        except (ConnectionError, EOFError):
            pass  # it is over
        finally:
            self._talks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        assert length is not None, head
        self.asked.append((head, await reader.readexactly(int(length[1]))))
        for number, piece in enumerate(self.answer, 1):
            if number == len(self.answer):
                await self.may_end.wait()
            writer.write(piece)
            await writer.drain()
        if self.floods:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(self.floods):
                writer.write(b"%x\r\n%s\r\n" % (len(EVENT), EVENT))
                self.stuck_since = time.monotonic()
                await writer.drain()
                self.flooded += 1
            last = b"data: [DONE]\n\n"
            writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(last), last))
            await writer.drain()
        if not self.keeps_open:
            writer.write_eof()
            self.too_much.append(await reader.read())
            raise EOFError
