"""What an agent's sample says of engines, read with care: the sender is on the node, and no more trusted than that."""

from __future__ import annotations

from forebay.wire.v1 import types_pb2 as words
from forebay.wire.v1.discovery_pb2 import FoundEngine
from forebay.wire.v1.telemetry_pb2 import TelemetrySample
from forebay_registry.backend import EngineKind
from forebay_registry.discovery.offers import MOST_ENGINES, EngineFacts

KINDS = {
    words.ENGINE_KIND_OLLAMA: EngineKind.OLLAMA,
    words.ENGINE_KIND_VLLM: EngineKind.VLLM,
    words.ENGINE_KIND_LLAMACPP: EngineKind.LLAMACPP,
    words.ENGINE_KIND_SGLANG: EngineKind.SGLANG,
}
_MOST_GPUS = 64
_MOST_AGE_S = 24 * 3600
_MOST_TEXT = 64


def engines_in(sample: TelemetrySample) -> tuple[EngineFacts, ...] | None:
    """None: it says nothing that counts."""
    if sample.engines_age_s > _MOST_AGE_S:
        return None
    return tuple(_facts(engine) for engine in sample.engines[:MOST_ENGINES] if 0 < engine.port < 65536)


def _facts(told: FoundEngine) -> EngineFacts:
    return EngineFacts(
        KINDS.get(told.kind),
        told.port,
        _text(told.listens_on),
        tuple(sorted({index for index in told.gpu_indices if index < 1024}))[:_MOST_GPUS],
        told.gpus_known,
        told.pid if told.HasField("pid") else None,
        _text(told.version),
        told.models if told.HasField("models") else None,
    )


def _text(told: str) -> str:
    return told if len(told) <= _MOST_TEXT and told.isprintable() else ""
