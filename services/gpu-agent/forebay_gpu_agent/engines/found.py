"""What was found, and which GPUs it holds. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

from forebay.wire.v1 import discovery_pb2 as told
from forebay.wire.v1 import telemetry_pb2 as wire
from forebay.wire.v1 import types_pb2 as words


class EngineKind(StrEnum):
    OLLAMA = "ollama"
    VLLM = "vllm"
    LLAMACPP = "llamacpp"
    SGLANG = "sglang"


@dataclass(frozen=True, slots=True)
class FoundEngine:
    kind: EngineKind
    port: int
    listens_on: str
    """The address that its socket is bound to."""
    pid: int | None = None
    """None where the agent may not know it, or where it is that of a proxy."""
    family: frozenset[int] = frozenset()
    """Its process and those below it: an engine's workers hold the GPUs."""
    version: str = ""
    models: int | None = None


_KINDS = {
    EngineKind.OLLAMA: words.ENGINE_KIND_OLLAMA,
    EngineKind.VLLM: words.ENGINE_KIND_VLLM,
    EngineKind.LLAMACPP: words.ENGINE_KIND_LLAMACPP,
    EngineKind.SGLANG: words.ENGINE_KIND_SGLANG,
}
_NO_GPU = (wire.GPU_STATE_NO_DRIVER, wire.GPU_STATE_NO_GPU)


def near(address: str) -> str:
    """Where a socket that is bound to `address` is reached from this host."""
    bound = ip_address(address)
    if not bound.is_unspecified:
        return address
    return "127.0.0.1" if bound.version == 4 else "::1"


def add_engines(sample: wire.TelemetrySample, engines: Iterable[FoundEngine], age_s: float) -> None:
    """Puts them into a sample, with the GPUs on which that sample saw their processes."""
    sample.engines_age_s = round(max(0.0, age_s))
    sample.engines.extend(_to_wire(engine, sample) for engine in engines)


def _to_wire(engine: FoundEngine, sample: wire.TelemetrySample) -> told.FoundEngine:
    held = [gpu.index for gpu in sample.gpus if any(process.pid in engine.family for process in gpu.processes)]
    sees_all = sample.gpu_state == wire.GPU_STATE_OK and not any(gpu.error for gpu in sample.gpus)
    return told.FoundEngine(
        kind=_KINDS[engine.kind],
        port=engine.port,
        listens_on=engine.listens_on,
        pid=engine.pid,
        version=engine.version,
        models=engine.models,
        gpu_indices=held,
        gpus_known=sample.gpu_state in _NO_GPU or (engine.pid is not None and sees_all),
    )
