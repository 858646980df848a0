"""The pages of one engine: asking for them below its base URL, with its credential, and with an end to how much is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson

from forebay_registry.backend import EngineKind
from forebay_registry.engines import answers
from forebay_registry.engines.answers import BadAnswer
from forebay_registry.engines.outcome import Outcome

MAX_BODY_BYTES = 8 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_NOT_THERE = frozenset({404, 405, 501})
_NO_CREDENTIAL = frozenset({401, 402, 403})
_NO_CREDENTIAL_WORDS = re.compile(r"API key (?:not valid|expired)|credit balance is too low", re.IGNORECASE)
"""Of providers that say so with status 400."""
_LOADS_WORDS = re.compile(r"\bloading\b|\bstarting\b|\bwarming up\b|\bnot ready\b|\binitiali[sz]ing\b", re.IGNORECASE)
"""Of engines that answer 503 until their model is in memory: llama.cpp's server, and what stands in front of others."""
_NEAR = frozenset({EngineKind.LLAMACPP, EngineKind.OLLAMA, EngineKind.SGLANG, EngineKind.VLLM})


class Refusing(Exception):
    """It answered, and not as a healthy engine does; the text goes on after "The engine at HOST"."""

    def __init__(self, outcome: Outcome, said: str) -> None:
        super().__init__(said)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class Pages:
    session: aiohttp.ClientSession
    base: str
    headers: dict[str, str]

    async def demand(self, path: str) -> bytes:
        page = await self.get(path)
        if page is None:
            raise BadAnswer(f"it has no {path}")
        return page

    async def get(self, path: str) -> bytes | None:
        """The body of a 200; None where the engine has no such page. Raises Refusing, BadAnswer."""
        return await self._ask("GET", path, None)

    async def post(self, path: str, body: Any) -> bytes | None:
        """As `get`."""
        return await self._ask("POST", path, orjson.dumps(body))

    async def _ask(self, method: str, path: str, body: bytes | None) -> bytes | None:
        headers = self.headers if body is None else {**self.headers, "content-type": "application/json"}
        # Redirects are not followed: a credential is for the address that was registered.
        async with self.session.request(
            method, self.base + path, headers=headers, data=body, allow_redirects=False
        ) as response:
            answer = await _read(response)
            if response.status == 200:
                return answer
            if response.status in _NOT_THERE:
                return None
            said = answers.read_error(answer)
            if response.status in _NO_CREDENTIAL or (response.status == 400 and _NO_CREDENTIAL_WORDS.search(said)):
                raise Refusing(Outcome.CREDENTIAL, f"does not accept the credential it was given ({response.status})")
            if 300 <= response.status < 400:
                where = response.headers.get("location", "elsewhere")[:200]
                raise Refusing(Outcome.STATUS, f"sends to {where}; register that address instead")
            loads = response.status == 503 and _LOADS_WORDS.search(said)
            outcome = Outcome.LOADING if loads else Outcome.STATUS
            raise Refusing(outcome, f"answers {path} with {response.status}" + (f" ({said})" if said else ""))


def of_model(path: str, model: str) -> str:
    """A page of one of the models behind llama.cpp's router, which shall not load it for that."""
    return f"{path}?model={quote(model, safe='')}&autoload=false"


def headers_for(kind: EngineKind | None, credential: str | None) -> dict[str, str]:
    """How an engine of this kind wants to be shown a credential. Engines nearby pack nothing: that costs them more than it
    saves on the way."""
    plain = {"accept-encoding": "identity"} if kind in _NEAR else {}
    match kind:
        case EngineKind.ANTHROPIC:
            return plain | {"anthropic-version": "2023-06-01"} | ({"x-api-key": credential} if credential else {})
        case EngineKind.GEMINI:
            return plain | ({"x-goog-api-key": credential} if credential else {})
        case EngineKind.AZURE:
            return plain | ({"api-key": credential} if credential else {})
        case _:
            return plain | ({"authorization": f"Bearer {credential}"} if credential else {})


async def _read(response: aiohttp.ClientResponse) -> bytes:
    chunks, size = [], 0
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            response.close()
            raise BadAnswer(f"its answer is longer than {MAX_BODY_BYTES >> 20} MiB")
        chunks.append(chunk)
    return b"".join(chunks)
