"""llama.cpp's server as a child, so that a machine without any engine answers its first request by a real model."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import aiohttp

from forebay.errors import CannotStart
from forebay.local.demo_model import Model, fetch_model
from forebay.local.process import Command
from forebay.local.supervised import Supervised, keep_running
from forebay.local.terminal import SilentTerminal, Terminal

DEMO_NAME = "demo"
"""Clients may call the demo's model so, whichever it is."""

_CONTEXT_OF_A_SLOT = 4096


@dataclass(frozen=True, slots=True)
class DemoEngine:
    url: str
    model: str
    slots: int
    licence: str
    server: Supervised


@asynccontextmanager
async def open_demo_engine(
    directory: Path,
    *,
    port: int,
    log: Path,
    slots: int = 4,
    threads: int | None = None,
    key_file: Path | None = None,
    terminal: Terminal | None = None,
    hub: str | None = None,
) -> AsyncIterator[DemoEngine]:
    """The model is loaded when entered. `directory` keeps the weights; with a `key_file`, callers must give the key in
    it as a bearer token. Raises CannotStart."""
    terminal = terminal or SilentTerminal()
    _demand_server()
    model = await fetch_model(directory, terminal, hub)
    url = f"http://127.0.0.1:{port}"

    async def ready() -> bool:
        return await _is_healthy(url)

    command = Command(
        name="llama.cpp",
        argv=(
            *(sys.executable, "-m", "forebay.local.llama_server"),
            *_options(model, port, slots, threads or _threads()),
            *_key_options(key_file),
        ),
        log=log,
        grace_s=3.0,
        ready_within_s=120.0,  # a laptop's disk, cold
    )
    terminal.line(f"Model: {model.licence}.")
    async with AsyncExitStack() as stack:
        with terminal.waiting(f"Loading {model.name}"):
            server = await stack.enter_async_context(keep_running(command, ready, terminal.line))
        yield DemoEngine(url, model.name, slots, model.licence, server)


def _demand_server() -> None:
    if find_spec("xllamacpp") is None:
        raise CannotStart(
            "There is no engine on this machine and none to start: pip install 'forebay[demo]', start an engine such as "
            "Ollama, or run without one (--no-engine) and add yours later with forebay backend add."
        )


def _options(model: Model, port: int, slots: int, threads: int) -> tuple[str, ...]:
    return (
        # Two names: what it is, and one that a document can name whichever model it turned out to be.
        *("-m", str(model.file), "--alias", f"{model.name},{DEMO_NAME}"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("-t", str(threads), "-np", str(slots), "-c", str(slots * _CONTEXT_OF_A_SLOT)),
        *model.options,
    )


def _key_options(key_file: Path | None) -> tuple[str, ...]:
    return ("--api-key-file", str(key_file)) if key_file else ()


def _threads() -> int:
    """One core is left to the rest: the threads wait for each other after each layer, and when one has to wait for its core
    they all do."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores - 1))


async def _is_healthy(url: str) -> bool:
    """llama-server answers 503 while it loads."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session,
            session.get(f"{url}/health") as response,
        ):
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
