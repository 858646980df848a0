"""Which inference engines answer on this machine already, on the ports where people usually run them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import aiohttp

USUAL_PORTS = (11434, 8000, 8080)
"""Ollama, vLLM, llama.cpp."""
_PROBE_S = 2.0


class EngineKind(StrEnum):
    OLLAMA = "ollama"
    VLLM = "vllm"
    LLAMA_CPP = "llamacpp"
    OPENAI = "openai"
    """Any other server of that dialect."""


@dataclass(frozen=True, slots=True)
class Engine:
    kind: EngineKind
    url: str
    """`http://host:port`, without a path."""
    models: tuple[str, ...]
    """As the engine names them; none when it has none yet."""
    wants_key: bool = False
    """It lets nobody look without a key, and may be something else entirely."""


async def discover(
    ports: Collection[int] = USUAL_PORTS, skip: Collection[int] = (), host: str = "127.0.0.1"
) -> list[Engine]:
    """The engines that answer there, in the order of `ports`. `skip` holds Forebay's own ports."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PROBE_S)) as session:
        probes = (_identify(session, f"http://{host}:{port}") for port in ports if port not in skip)
        return [engine for engine in await asyncio.gather(*probes) if engine]


async def _identify(session: aiohttp.ClientSession, url: str) -> Engine | None:
    """Asked by the paths that only one kind has; what a list of models says of its owner is but a hint."""
    if "version" in (await _get(session, f"{url}/api/version") or {}):
        tags = await _get(session, f"{url}/api/tags") or {}
        return Engine(EngineKind.OLLAMA, url, _names(tags.get("models"), "name"))
    listed = await _get(session, f"{url}/v1/models")
    if listed is None and await _wants_key(session, f"{url}/v1/models"):
        return Engine(EngineKind.OPENAI, url, (), wants_key=True)
    if listed is None or not isinstance(listed.get("data"), list):
        return None
    models = _names(listed["data"], "id")
    owners = {entry.get("owned_by") for entry in listed["data"] if isinstance(entry, dict)}
    if "llamacpp" in owners or "default_generation_settings" in (await _get(session, f"{url}/props") or {}):
        return Engine(EngineKind.LLAMA_CPP, url, models)
    if "vllm" in owners:
        return Engine(EngineKind.VLLM, url, models)
    return Engine(EngineKind.OPENAI, url, models)


async def _get(session: aiohttp.ClientSession, url: str) -> dict[str, Any] | None:
    """The object answered, or None for anything else: whoever listens there may speak another language entirely."""
    try:
        async with session.get(url) as response:
            body = await response.json(content_type=None) if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, ValueError, OSError):
        return None
    return body if isinstance(body, dict) else None


async def _wants_key(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status in (401, 403)
    except (aiohttp.ClientError, TimeoutError, ValueError, OSError):
        return False


def _names(entries: Any, field: str) -> tuple[str, ...]:
    if not isinstance(entries, list):
        return ()
    return tuple(entry[field] for entry in entries if isinstance(entry, dict) and isinstance(entry.get(field), str))
