"""A client that costs little: load and what is loaded share the machine's cores. One connection, one request at a time, no
more of HTTP than the gateway's answers need."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from forebay.local.layout import LOOPBACK

NO_ANSWER = 0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    """NO_ANSWER where the connection broke before a whole one had come."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    first_s: float = 0.0
    """From sending to the first byte of the body."""
    took_s: float = 0.0

    @property
    def retry_after_s(self) -> float | None:
        told = self.headers.get("retry-after-ms")
        if told is not None:
            return float(told) / 1000
        told = self.headers.get("retry-after")
        return None if told is None else float(told)

    @property
    def reason(self) -> str:
        return self.headers.get("x-forebay-reason", "")


def chat(key: str, words: str, *, tokens: int, stream: bool, model: str = "fake-model", **headers: str) -> bytes:
    """A whole request."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": words}],
        "max_tokens": tokens,
        "stream": stream,
    }
    return request(json.dumps(body).encode(), authorization=f"Bearer {key}", **headers)


def request(body: bytes, *, path: str = "/v1/chat/completions", **headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{lines}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


class QuickClient:
    """Connects when first asked, and anew after a connection that broke or was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None

    async def ask(self, whole_request: bytes, within_s: float = 120.0) -> Answer:
        began = time.monotonic()
        try:
            async with asyncio.timeout(within_s):
                return await self._ask(whole_request, began)
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            self.close()
            return Answer(NO_ANSWER, took_s=time.monotonic() - began)
        except asyncio.CancelledError:
            self.close()
            raise

    async def _ask(self, whole_request: bytes, began: float) -> Answer:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(LOOPBACK, self._port)
        reader, writer = self._reader, self._writer
        assert reader is not None
        writer.write(whole_request)
        raw = await reader.readuntil(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        if "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"]))
            first_s = time.monotonic() - began
        else:
            pieces: list[bytes] = []
            first_s = 0.0
            while size := int(await reader.readline(), 16):
                pieces.append((await reader.readexactly(size + 2))[:-2])
                first_s = first_s or time.monotonic() - began
            await reader.readline()
            body = b"".join(pieces)
        if headers.get("connection") == "close":
            with suppress(ConnectionError):
                writer.close()
            self._reader = self._writer = None
        return Answer(int(first.split()[1]), headers, body, first_s, time.monotonic() - began)


def share(values: list[float], part: float) -> float:
    """The value below which that part of them lies; NaN of none."""
    if not values:
        return float("nan")
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]
