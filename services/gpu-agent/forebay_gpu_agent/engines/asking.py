"""Which engine listens there: by what only that one says. Blocking, bounded in time and size; a redirect is no answer.

The agent sends no credential. Where an engine wants one for its list of models, its other pages still give it away."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from typing import Any

from forebay_gpu_agent.engines.found import EngineKind, near

ENGINE_S = 3.0
"""For all questions to one engine together."""
_MOST_BYTES = 1 << 20
_MOST_VERSION = 64
_OWNERS = {
    "vllm": EngineKind.VLLM,
    "sglang": EngineKind.SGLANG,
    "llamacpp": EngineKind.LLAMACPP,
    "llama.cpp": EngineKind.LLAMACPP,
}
_GAUGES = ((b"vllm:", EngineKind.VLLM), (b"sglang:", EngineKind.SGLANG), (b"llamacpp:", EngineKind.LLAMACPP))


@dataclass(frozen=True, slots=True)
class Answer:
    kind: EngineKind
    version: str
    models: int | None


def ask(address: str, port: int) -> Answer | None:
    """`address`: that its socket is bound to. None for what is no engine that we know, or does not answer in time."""
    try:
        pages = _Pages(near(address), port, time.monotonic() + ENGINE_S)
        kind, models = _kind_and_models(pages)
        return Answer(kind, _version(pages, kind), models) if kind is not None else None
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return None


def _kind_and_models(pages: _Pages) -> tuple[EngineKind | None, int | None]:
    listed = _field(pages.json("/v1/models"), "data")
    models = len(listed) if isinstance(listed, list) else None
    owners = {str(_field(entry, "owned_by")).lower() for entry in listed or ()} if models is not None else set()
    if len(owners) == 1 and (owner := _OWNERS.get(owners.pop())) is not None:
        return owner, models
    tags = _field(pages.json("/api/tags"), "models")
    if isinstance(tags, list) and isinstance(_field(pages.json("/api/version"), "version"), str):
        return EngineKind.OLLAMA, len(tags)
    if isinstance(_field(pages.json("/props"), "default_generation_settings"), dict):
        return EngineKind.LLAMACPP, models
    metrics = pages.get("/metrics") or b""
    return next((kind for begin, kind in _GAUGES if b"\n" + begin in b"\n" + metrics), None), models


def _version(pages: _Pages, kind: EngineKind) -> str:
    match kind:
        case EngineKind.OLLAMA:
            told = _field(pages.json("/api/version"), "version")
        case EngineKind.VLLM:
            told = _field(pages.json("/version"), "version")
        case EngineKind.LLAMACPP:
            told = _field(pages.json("/props"), "build_info")
        case EngineKind.SGLANG:
            return ""  # its page that tells asks the whole engine
    return told[:_MOST_VERSION] if isinstance(told, str) and told.isprintable() else ""


class _Pages:
    """GETs from one server, until a moment, each page once."""

    def __init__(self, host: str, port: int, until: float) -> None:
        self._host = host
        self._port = port
        self._until = until
        self._read: dict[str, bytes | None] = {}

    def json(self, path: str) -> Any:
        body = self.get(path)
        try:
            return json.loads(body) if body is not None else None
        except ValueError:
            return None

    def get(self, path: str) -> bytes | None:
        """The body of a 200, None for anything else. Raises OSError when there is no answer in time."""
        if path not in self._read:
            self._read[path] = self._get(path)
        return self._read[path]

    def _get(self, path: str) -> bytes | None:
        # Only a connection that was told how long it may wait is opened: http.client waits for each read alone.
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._left())
        try:
            connection.request("GET", path, headers={"user-agent": "forebay-gpu-agent", "connection": "close"})
            # One that ends with its connection outlives it unless it is closed itself.
            with connection.getresponse() as response:
                return self._read_whole(connection, response) if response.status == 200 else None
        finally:
            connection.close()

    def _read_whole(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> bytes | None:
        """None: it is too long."""
        chunks: list[bytes] = []
        size = 0
        while size <= _MOST_BYTES:
            if connection.sock is not None:
                connection.sock.settimeout(self._left())
            chunk = response.read1(64 << 10)
            if not chunk:
                return b"".join(chunks)
            self._left()
            chunks.append(chunk)
            size += len(chunk)
        return None

    def _left(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _field(page: Any, name: str) -> Any:
    return page.get(name) if isinstance(page, dict) else None
