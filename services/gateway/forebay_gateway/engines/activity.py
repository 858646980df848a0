"""What an engine tells of itself while a request hears nothing from it: that it works, or loads, or neither. Pure.

Only engines that tell it are asked: llama.cpp, vLLM, SGLang and Ollama. Whatever cannot be read tells nothing."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import orjson

from forebay.prometheus_text import Scanner
from forebay_gateway.engine_kind import EngineKind


class Activity(StrEnum):
    BUSY = "busy"
    """It works, or loads a model: whoever waits may be served yet."""
    IDLE = "idle"
    """It knows of no request and loads nothing."""
    UNTOLD = "untold"


_METRICS = "/metrics"
_WORK: Mapping[EngineKind, tuple[str, ...]] = {
    EngineKind.LLAMACPP: ("llamacpp:requests_processing", "llamacpp:requests_deferred"),
    # Requests were swapped out before vLLM 0.8.
    EngineKind.VLLM: ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:num_requests_swapped"),
    # SGLang counts a request that it reads in pieces neither as running nor as queued, but its tokens as used.
    EngineKind.SGLANG: (
        "sglang:num_running_reqs",
        "sglang:num_queue_reqs",
        "sglang:num_grammar_queue_reqs",
        "sglang:num_used_tokens",
        "sglang:token_usage",
    ),
}
_SCANNERS = {kind: Scanner(names) for kind, names in _WORK.items()}
_COUNTS = {name for names in _WORK.values() for name in names[:2]}
"""Without these a page tells nothing."""

PAGES: Mapping[EngineKind, tuple[str, ...]] = {
    EngineKind.LLAMACPP: ("/health", "/slots", _METRICS),
    EngineKind.VLLM: (_METRICS,),
    EngineKind.SGLANG: (_METRICS,),
    EngineKind.OLLAMA: ("/api/ps",),
}
"""Where an engine tells, in the order in which to ask, until one does."""


def read_activity(kind: EngineKind, path: str, status: int, body: bytes) -> Activity:
    """Of one page's answer. `UNTOLD`: the next page may tell."""
    if path == "/health":
        return Activity.BUSY if status == 503 else Activity.UNTOLD  # llama.cpp's «Loading model»
    if status != 200:
        return Activity.UNTOLD
    if path == _METRICS:
        return _of_gauges(kind, body)
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Activity.UNTOLD
    return _of_slots(told) if path == "/slots" else _of_resident(told)


def _of_gauges(kind: EngineKind, page: bytes) -> Activity:
    found = _summed(kind, page)
    if any(found.values()):
        return Activity.BUSY
    return Activity.IDLE if len(found.keys() & _COUNTS) == 2 else Activity.UNTOLD


def _summed(kind: EngineKind, page: bytes) -> dict[str, float]:
    """Over the replicas of an engine, each of which has lines of its own."""
    sums: dict[str, float] = {}
    for sample in _SCANNERS[kind].scan(page):
        sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def _of_slots(told: Any) -> Activity:
    """llama.cpp's list of slots. Requests wait only while all of them work."""
    if not isinstance(told, list) or not told or not all(isinstance(slot, dict) for slot in told):
        return Activity.UNTOLD
    working = [slot.get("is_processing") for slot in told]
    if any(working):
        return Activity.BUSY
    return Activity.IDLE if all(each is False for each in working) else Activity.UNTOLD


def _of_resident(told: Any) -> Activity:
    """Ollama's models in memory, those among them that are being loaded. It does not tell which of them work."""
    listed = told.get("models") if isinstance(told, dict) else None
    if not isinstance(listed, list):
        return Activity.UNTOLD
    return Activity.BUSY if listed else Activity.IDLE
