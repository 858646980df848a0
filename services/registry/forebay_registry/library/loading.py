"""Getting a model into an engine's memory and out of it, each engine in its way, and the first word afterwards, so that the
first user does not wait for it. Nothing here is anybody's request: it takes no turn and leaves no row in the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from forebay.clock import Clock
from forebay_registry.backend import Condition, EngineKind
from forebay_registry.engines.answers import named
from forebay_registry.fleet.fleet import View
from forebay_registry.library.door import Door
from forebay_registry.library.ollama import ASK_S, LOAD_S, Ollama
from forebay_registry.library.trouble import EngineTrouble

_LOOK_S = 0.5
"""Between two questions whether llama.cpp's router has loaded it; it answers before it has."""
_RESIDENT = ("loaded", "sleeping")
_WARM_S = 300.0


@dataclass(frozen=True, slots=True)
class Loaded:
    load_ms: int
    warmup_ms: int | None
    note: str


async def load(door: Door, view: View, model: str, *, keep_alive: str, source: str, clock: Clock) -> Loaded:
    """`model` as the engine calls it. Raises EngineTrouble."""
    began = clock.monotonic()
    if view.kind is EngineKind.OLLAMA:
        embeds = _embeds_only((await Ollama(door).describe(model)).capabilities)
    else:
        embeds = any(_embeds_only(m.capabilities) for m in view.models if model in (m.engine_name, m.name))
    match view.kind:
        case EngineKind.OLLAMA if embeds:
            await Ollama(door).embed_one(model, keep_alive)
        case EngineKind.OLLAMA:
            await Ollama(door).load(model, keep_alive)
        case EngineKind.LLAMACPP:
            await _load_in_router(door, model)
        case EngineKind.VLLM:
            await door.ask("POST", "/v1/load_lora_adapter", {"lora_name": model, "lora_path": source}, within_s=LOAD_S)
        case EngineKind.SGLANG:
            await door.ask("POST", "/load_lora_adapter", {"lora_name": model, "lora_path": source}, within_s=LOAD_S)
        case _:
            raise EngineTrouble(f"{door.backend} loads no models by request.", is_final=True)
    load_ms = round((clock.monotonic() - began) * 1000)
    if is_saturated(view):
        return Loaded(load_ms, None, "It was not warmed up: the backend is busy.")
    began = clock.monotonic()
    try:
        await _one_word(door, view, model, keep_alive, embeds=embeds)
    except EngineTrouble as error:
        # It is loaded, which was the order; that it does not generate is told and not hidden.
        return Loaded(load_ms, None, f"It is loaded, and its first answer failed: {error.message}")
    return Loaded(load_ms, round((clock.monotonic() - began) * 1000), "")


async def unload(door: Door, kind: EngineKind | None, model: str) -> None:
    """Raises EngineTrouble."""
    match kind:
        case EngineKind.OLLAMA:
            await Ollama(door).unload(model)
        case EngineKind.LLAMACPP:
            await door.ask("POST", "/models/unload", {"model": model}, within_s=ASK_S)
        case EngineKind.VLLM:
            await door.ask("POST", "/v1/unload_lora_adapter", {"lora_name": model}, within_s=ASK_S)
        case EngineKind.SGLANG:
            await door.ask("POST", "/unload_lora_adapter", {"lora_name": model}, within_s=ASK_S)
        case _:
            raise EngineTrouble(f"{door.backend} unloads no models by request.", is_final=True)


def is_saturated(view: View) -> bool:
    """By its own gauges; an engine that has none is taken at its word."""
    load = view.load
    if view.condition is Condition.SATURATED:
        return True
    if load is None:
        return False
    return bool(load.waiting) or (load.running is not None and load.running >= view.slots)


def _embeds_only(capabilities: Collection[str]) -> bool:
    return "embedding" in capabilities and not {"completion", "chat"} & set(capabilities)


async def _load_in_router(door: Door, model: str) -> None:
    if (await _router_status(door, model)).get("value") in _RESIDENT:
        return  # it refuses to load what is there
    told = await door.ask("POST", "/models/load", {"model": model}, within_s=ASK_S)
    if told.get("success") is False:
        raise EngineTrouble(f"{door.backend} did not begin to load {model}.", is_final=False)
    try:
        async with asyncio.timeout(LOAD_S):
            while True:
                status = await _router_status(door, model)
                if status.get("value") in _RESIDENT:
                    return
                if status.get("failed") is True:
                    code = status.get("exit_code")
                    raise EngineTrouble(f"{door.backend} could not load {model} (exit status {code}).", is_final=False)
                await asyncio.sleep(_LOOK_S)
    except TimeoutError as error:
        raise EngineTrouble(f"{door.backend} did not load {model} within {LOAD_S:g} s.", is_final=False) from error


async def _router_status(door: Door, model: str) -> dict[str, object]:
    page = await door.ask("GET", "/models", within_s=ASK_S)
    for entry, name in named(page.get("data"), "id"):
        status = entry.get("status")
        if name == model and isinstance(status, dict):
            return status
    raise EngineTrouble(
        f"{door.backend} does not tell whether {model} is loaded; is its llama.cpp a router (started without a model)?",
        is_final=True,
    )


async def _one_word(door: Door, view: View, model: str, keep_alive: str, *, embeds: bool) -> None:
    if view.kind is EngineKind.OLLAMA:
        ollama = Ollama(door)
        await (ollama.embed_one(model, keep_alive) if embeds else ollama.generate_one(model, keep_alive))
    elif embeds:
        await door.ask("POST", "/v1/embeddings", {"model": model, "input": "Hello"}, within_s=_WARM_S)
    else:
        asked = {"model": model, "prompt": "Hello", "max_tokens": 1}
        await door.ask("POST", "/v1/completions", asked, within_s=_WARM_S)
