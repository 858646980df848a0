"""Ollama's own pages about models: fetching, deleting, copying, describing, loading them and letting them go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from forebay_registry.engines.answers import MAX_TOKENS, BadAnswer, named, whole, words_in
from forebay_registry.library.door import Door
from forebay_registry.library.names import is_same
from forebay_registry.library.progress import SUCCESS, VERIFYING, Line, read_line
from forebay_registry.library.trouble import EngineTrouble, said

FOR_EVER = "-1"
AS_USUAL = "5m"
"""Ollama's own default, for a model that is pinned no longer."""
ASK_S = 30.0
LOAD_S = 1800.0
"""A large model from a slow disk."""
_SILENT_S = 90.0
"""Between two lines of a download, which come many times a second; a manifest may take its time."""
_VERIFYING_S = 3600.0
"""Ollama says that it verifies what it fetched, and then nothing until it has."""
_LONGEST_TEXT = 16_384


@dataclass(frozen=True, slots=True)
class Description:
    family: str
    format: str
    parameter_size: str
    quantization: str
    context_length: int | None
    capabilities: tuple[str, ...]
    parameters: str
    template: str
    system: str
    license: str
    modified_at: str


class Ollama:
    def __init__(self, door: Door) -> None:
        self._door = door

    async def pull(self, model: str) -> AsyncGenerator[Line, None]:
        """Each line as it comes; returns when the model is there. Raises EngineTrouble, also for a stream that is cut or
        has something else in it: what was fetched stays, and the next pull goes on from there."""
        lines = self._door.lines("/api/pull", {"model": model, "stream": True}, first_s=_SILENT_S)
        silent_s, line = _SILENT_S, Line("")
        try:
            while True:
                async with asyncio.timeout(silent_s):
                    raw = await anext(lines, None)
                if raw is None:
                    break
                line = read_line(raw)
                if line.error:
                    raise said(self._door.backend, line.error)
                silent_s = _VERIFYING_S if line.status.startswith(VERIFYING) else _SILENT_S
                yield line
                if line.status == SUCCESS:
                    return
        except TimeoutError as error:
            raise EngineTrouble(
                f"{self._door.backend} has said nothing for {silent_s:g} s; its last word was {line.status!r}.",
                is_final=False,
            ) from error
        except BadAnswer as error:
            raise EngineTrouble(
                f"{self._door.backend} sent something else than progress: {error}.", is_final=False
            ) from error
        finally:
            await lines.aclose()
        raise EngineTrouble(
            f"{self._door.backend} ended the pull without success; its last word was {line.status!r}.", is_final=False
        )

    async def digest_of(self, model: str) -> str | None:
        """What it has under this name; None when it has nothing."""
        page = await self._door.ask("GET", "/api/tags", within_s=ASK_S)
        for entry, name in named(page.get("models"), "name"):
            if is_same(name, model):
                digest = entry.get("digest")
                return digest if isinstance(digest, str) else ""
        return None

    async def delete(self, model: str) -> None:
        await self._door.ask("DELETE", "/api/delete", {"model": model}, within_s=ASK_S)

    async def copy(self, model: str, destination: str) -> None:
        await self._door.ask("POST", "/api/copy", {"source": model, "destination": destination}, within_s=ASK_S)

    async def is_loaded(self, model: str, *, within_s: float) -> bool:
        page = await self._door.ask("GET", "/api/ps", within_s=within_s)
        return any(is_same(name, model) for _, name in named(page.get("models"), "name"))

    async def describe(self, model: str, *, within_s: float = ASK_S) -> Description:
        page = await self._door.ask("POST", "/api/show", {"model": model}, within_s=within_s)
        told = page.get("details")
        details: dict[str, Any] = told if isinstance(told, dict) else {}
        about = page.get("model_info")
        lengths = [
            length
            for key, value in (about.items() if isinstance(about, dict) else ())
            if key.endswith(".context_length") and (length := whole(value, MAX_TOKENS))
        ]
        return Description(
            family=_text(details.get("family")),
            format=_text(details.get("format")),
            parameter_size=_text(details.get("parameter_size")),
            quantization=_text(details.get("quantization_level")),
            context_length=max(lengths, default=None),
            capabilities=words_in(page.get("capabilities")),
            parameters=_text(page.get("parameters")),
            template=_text(page.get("template")),
            system=_text(page.get("system")),
            license=next(iter(_text(page.get("license")).strip().splitlines()), ""),
            modified_at=_text(page.get("modified_at")),
        )

    async def load(self, model: str, keep_alive: str) -> None:
        """Into memory. Empty `keep_alive`: as long as the engine is used to."""
        await self._keep(model, keep_alive or None)

    async def unload(self, model: str) -> None:
        await self._keep(model, "0")

    async def generate_one(self, model: str, keep_alive: str) -> None:
        await self._door.ask("POST", "/api/generate", _one_word(model, keep_alive), within_s=LOAD_S)

    async def embed_one(self, model: str, keep_alive: str) -> None:
        """Loads it too; there is no empty request that would."""
        await self._door.ask(
            "POST", "/api/embed", {"model": model, "input": "Hello", **_kept(keep_alive)}, within_s=LOAD_S
        )

    async def _keep(self, model: str, keep_alive: str | None) -> None:
        await self._door.ask("POST", "/api/generate", {"model": model, **_kept(keep_alive or "")}, within_s=LOAD_S)


def _one_word(model: str, keep_alive: str) -> dict[str, Any]:
    return {
        "model": model,
        "prompt": "Hello",
        "stream": False,
        "options": {"num_predict": 1},
        **_kept(keep_alive),
    }


def _kept(keep_alive: str) -> dict[str, Any]:
    # Numbers are seconds, and negative ones for ever; a text must have a unit.
    if not keep_alive:
        return {}
    return {"keep_alive": int(keep_alive) if keep_alive in ("0", FOR_EVER) else keep_alive}


def _text(told: Any) -> str:
    return told[:_LONGEST_TEXT] if isinstance(told, str) else ""
