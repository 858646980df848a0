"""An engine that breaks HTTP itself, which the fake engine does not: garbage, half characters, wrong lengths, silence.

It looks like llama.cpp to a prober. One mode at a time is acted out on every generation, and each is written down with the
moment it came. Headers that a well engine would not send are the point, so it writes its answers byte by byte."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import time
from collections import Counter
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Self

MODEL = "fake-model"
_TOKENS = ("Grüße, ", "世界 ", "und ", "🌍 ")
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset
_LATER_TOO_LONG_S = 300.0


class Mode(StrEnum):
    WELL = "well"
    SPLIT_CHARACTERS = "split_characters"
    """Well, but the bytes come in pieces that end within characters."""
    REFUSES = "refuses"
    """Nobody listens."""
    ALWAYS_500 = "always_500"
    SOMETIMES_500 = "sometimes_500"
    """30 of 100."""
    STORM_429 = "storm_429"
    STORM_503 = "storm_503"
    RESETS_AT_ONCE = "resets_at_once"
    RESETS_MID_STREAM = "resets_mid_stream"
    HANGS_BEFORE_HEADERS = "hangs_before_headers"
    HANGS_MID_STREAM = "hangs_mid_stream"
    GARBAGE_FOR_A_HEAD = "garbage_for_a_head"
    GARBAGE_IN_STREAM = "garbage_in_stream"
    HALF_A_CHARACTER = "half_a_character"
    """An event with bytes that are no UTF-8."""
    LENGTH_TOO_LONG = "length_too_long"
    LENGTH_TOO_SHORT = "length_too_short"


class HostileEngine:
    """Entered: it listens at `url`."""

    def __init__(self, *, slots: int, tokens_per_s: float, chance: random.Random) -> None:
        self.slots = slots
        self.mode = Mode.WELL
        self.attempts: Counter[Mode] = Counter()
        self.arrivals: list[tuple[float, Mode]] = []
        """Of generations: when, on the monotonic clock, and what they met."""
        self.finished: list[float] = []
        """When each whole answer ended."""
        self.peak_running = 0
        self._running = 0
        self._gap_s = 1 / tokens_per_s
        self._chance = chance
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def become(self, mode: Mode) -> None:
        """From the next request on. To refuse, it also ends the connections that are open."""
        self.mode = mode
        if mode is Mode.REFUSES:
            await self._close()
        elif self._listener is None:
            await self._listen()

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._take, "127.0.0.1", self._port, reuse_address=True)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer), name="hostile-engine")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """False: the connection is to end."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        path = first.split()[1]
        await reader.readexactly(int(headers.get("content-length", 0)))
        if not path.endswith("/completions"):
            writer.write(self._page(path))
            return True
        mode = self.mode
        if mode is Mode.SOMETIMES_500:
            mode = Mode.ALWAYS_500 if self._chance.random() < 0.3 else Mode.WELL
        self.attempts[self.mode] += 1
        self.arrivals.append((time.monotonic(), mode))
        self._running += 1
        self.peak_running = max(self.peak_running, self._running)
        acting = asyncio.create_task(self._act(mode, writer))
        leaving = asyncio.create_task(reader.read(1))
        try:  # like an engine, it stops for a client that has gone
            await asyncio.wait({acting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            return acting.done() and acting.result()
        finally:
            self._running -= 1
            for task in (acting, leaving):
                task.cancel()
            await asyncio.gather(acting, leaving, return_exceptions=True)

    def _page(self, path: str) -> bytes:
        match path:
            case "/health":
                told: object = {"status": "ok"}
            case "/slots":  # as one that has forgotten what waits at it
                told = [{"id": number, "n_ctx": 4096, "is_processing": False} for number in range(self.slots)]
            case "/props":
                told = {
                    "default_generation_settings": {"n_ctx": 4096},
                    "total_slots": self.slots,
                    "model_alias": MODEL,
                    "model_path": f"/models/{MODEL}.gguf",
                    "build_info": "hostile",
                }
            case "/v1/models":
                told = {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1, "owned_by": "x"}]}
            case _:
                return _whole(404, {"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}})
        return _whole(200, told)

    async def _act(self, mode: Mode, writer: asyncio.StreamWriter) -> bool:
        match mode:
            case Mode.ALWAYS_500:
                writer.write(_whole(500, _error("out of memory", 500)))
                return True
            case Mode.STORM_429:
                writer.write(_whole(429, _error("slow down", 429), "retry-after: 1\r\n"))
                return True
            case Mode.STORM_503:
                writer.write(_whole(503, _error("too busy", 503)))
                return True
            case Mode.RESETS_AT_ONCE:
                _reset(writer)
                return False
            case Mode.HANGS_BEFORE_HEADERS:
                await asyncio.sleep(_LATER_TOO_LONG_S)
                return False
            case Mode.GARBAGE_FOR_A_HEAD:
                writer.write(bytes(range(256)) * 8)
                return False
        return await self._stream(mode, writer)

    async def _stream(self, mode: Mode, writer: asyncio.StreamWriter) -> bool:
        length = {Mode.LENGTH_TOO_LONG: 1 << 20, Mode.LENGTH_TOO_SHORT: 700}.get(mode)
        framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{framing}\r\n\r\n".encode())

        def send(event: bytes) -> None:
            writer.write(event if length is not None else b"%x\r\n%b\r\n" % (len(event), event))

        send(_event({"role": "assistant", "content": None}))
        for number in range(12):
            await asyncio.sleep(self._gap_s)
            event = _event({"content": _TOKENS[number % len(_TOKENS)]})
            if number == 4:
                match mode:
                    case Mode.RESETS_MID_STREAM:
                        await writer.drain()
                        _reset(writer)
                        return False
                    case Mode.HANGS_MID_STREAM:
                        await asyncio.sleep(_LATER_TOO_LONG_S)
                    case Mode.GARBAGE_IN_STREAM:
                        send(b"data: \x00\xff<html>{{{\n\n")
                    case Mode.HALF_A_CHARACTER:
                        event = event.replace("Grüße".encode(), b"Gr\xc3")
            if mode is Mode.SPLIT_CHARACTERS:
                cut = next((at for at, byte in enumerate(event) if byte >= 0x80), len(event) // 2) + 1
                send(event[:cut])
                await writer.drain()
                await asyncio.sleep(0.001)
                event = event[cut:]
            send(event)
            await writer.drain()
        send(_event({}, finish="stop"))
        usage = {"prompt_tokens": 7, "completion_tokens": 12, "total_tokens": 19}
        send(b"data: %b\n\n" % json.dumps(_chunk([]) | {"usage": usage}).encode())
        send(b"data: [DONE]\n\n")
        if length is not None:
            return False
        writer.write(b"0\r\n\r\n")
        self.finished.append(time.monotonic())
        return True


def _chunk(choices: list[object]) -> dict[str, object]:
    return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices}


def _event(delta: dict[str, object], finish: str | None = None) -> bytes:
    told = json.dumps(_chunk([{"index": 0, "delta": delta, "finish_reason": finish}]), ensure_ascii=False)
    return b"data: %b\n\n" % told.encode()


def _error(message: str, code: int) -> dict[str, object]:
    return {"error": {"message": message, "type": "server_error", "code": code}}


def _whole(status: int, told: object, more: str = "") -> bytes:
    body = json.dumps(told).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def _reset(writer: asyncio.StreamWriter) -> None:
    wire: socket.socket = writer.get_extra_info("socket")
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
