"""What an engine tells of itself, in words. Pure: the message and the time come in. What it does not tell is left out."""

from __future__ import annotations

from collections.abc import Iterator

from rich.markup import escape

from forebay.wire.v1 import registry_pb2
from forebay_admin.cli.words import age, count, gigabytes, span

_NEVER_S = 366 * 86_400
"""A model that stays for longer than this was told to stay for ever."""

Facts = Iterator[tuple[str, str]]
"""(what, how much)"""


def load_in_short(backend: registry_pb2.Backend, now: float) -> str:
    """For a column: `3 running, 5 waiting, cache 50 %`; empty when it tells nothing."""
    if not backend.HasField("load"):
        return ""
    load = backend.load
    if load.stale:
        return f"not told for {span(now - load.measured_at_us / 1_000_000)}"
    told = []
    if load.HasField("running"):
        told.append(f"{load.running} running")
    if load.HasField("waiting"):
        told.append(f"{load.waiting} waiting")
    if load.HasField("kv_used_fraction"):
        told.append(f"cache {_percent(load.kv_used_fraction)}")
    return ", ".join(told)


def place_facts(backend: registry_pb2.Backend, node: str) -> Facts:
    """Where it runs, and who wants it."""
    if node:
        yield "Node", escape(node)
        yield "GPUs", ", ".join(map(str, backend.gpu_indices)) or "all"
    if backend.labels:
        yield "Labels", escape(", ".join(f"{name}={value}" for name, value in sorted(backend.labels.items())))
    if backend.found_by:
        yield (
            "Wanted by",
            f"nobody: added by itself, found by {_FINDERS.get(backend.found_by, escape(backend.found_by))}",
        )
    if not backend.enabled:
        yield "Enabled", "no, by an operator"


_FINDERS = {"agent": "its node's agent", "kubernetes": "Kubernetes"}


def engine_facts(backend: registry_pb2.Backend, now: float) -> Facts:
    """Of the engine as a whole."""
    if backend.engine_version:
        yield "Version", escape(backend.engine_version)
    if backend.HasField("kv_tokens"):
        yield "Cache", f"{count(backend.kv_tokens)} tokens"
    if backend.HasField("models_at_once"):
        yield "Models at once", count(backend.models_at_once)
    short = load_in_short(backend, now)
    if short:
        yield "Load", short
    if backend.HasField("load") and not backend.load.stale:
        yield from _load_facts(backend.load, now)


def _load_facts(load: registry_pb2.EngineLoad, now: float) -> Facts:
    yield "Measured", age(load.measured_at_us, now)
    if load.HasField("swapped"):
        yield "Swapped out", count(load.swapped)
    if load.HasField("prompt_tokens_per_s"):
        yield "Reads", f"{load.prompt_tokens_per_s:,.0f} tokens/s"
    if load.HasField("completion_tokens_per_s"):
        yield "Writes", f"{load.completion_tokens_per_s:,.0f} tokens/s"
    if load.HasField("prefix_hit_fraction"):
        yield "Found in its cache", f"{_percent(load.prefix_hit_fraction)} of the prompts"
    if load.HasField("ttft_s"):
        yield "First token", f"after {load.ttft_s:.2f} s on average"
    if load.HasField("queue_s"):
        yield "Wait inside", f"{load.queue_s:.2f} s on average"
    if load.HasField("preemptions_per_s"):
        yield "Preemptions", f"{load.preemptions_per_s * 60:.1f} a minute"
    if load.running_loras:
        yield "Adapters in use", escape(", ".join(load.running_loras))


def model_row(model: registry_pb2.BackendModel, now: float) -> tuple[str, ...]:
    """Model, in memory, context, size, kind, what it can."""
    name = f"{model.name} ({model.engine_name})" if model.engine_name else model.name
    if model.parent:
        name += f", adapts {model.parent}"
    kind = " ".join(part for part in (model.family, model.parameter_size, model.quantization) if part)
    return (
        escape(name),
        _residency(model, now),
        count(model.context_length) if model.HasField("context_length") else "",
        _size(model),
        escape(kind),
        escape(", ".join(model.capabilities)),
    )


MODEL_COLUMNS = ("Model", "In memory", "#Context", "Size", "Kind", "Can")


def _residency(model: registry_pb2.BackendModel, now: float) -> str:
    if not model.HasField("loaded"):
        return ""
    if not model.loaded:
        return "no"
    if not model.HasField("expires_at_us"):
        return "yes"
    left_s = model.expires_at_us / 1_000_000 - now
    if left_s > _NEVER_S:
        return "for ever"
    return f"for {span(left_s)}" if left_s > 0 else "yes"


def _size(model: registry_pb2.BackendModel) -> str:
    if model.HasField("size_bytes"):
        on_gpu = ""
        if model.HasField("vram_bytes") and model.size_bytes:
            on_gpu = f", {_percent(min(1.0, model.vram_bytes / model.size_bytes))} on GPU"
        return gigabytes(model.size_bytes) + on_gpu
    return f"{gigabytes(model.disk_bytes)} on disk" if model.HasField("disk_bytes") else ""


def _percent(fraction: float) -> str:
    return f"{fraction * 100:.0f} %"
