"""How a request is said to a provider that has a wire of its own. Pure."""

from __future__ import annotations

from forebay_gateway.canonical.forms import CHAT, EMBEDDING, RERANK
from forebay_gateway.canonical.speech import Said, Speech
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.engines.anthropic_speech import AnthropicSpeech
from forebay_gateway.engines.cohere_speech import CohereEmbeddingSpeech, CohereRerankSpeech, CohereSpeech
from forebay_gateway.engines.gemini_speech import GeminiEmbeddingSpeech, GeminiSpeech
from forebay_gateway.engines.unspoken import Unspoken

_SPEECHES = {
    (EngineKind.ANTHROPIC, CHAT.path): AnthropicSpeech,
    (EngineKind.GEMINI, CHAT.path): GeminiSpeech,
    (EngineKind.GEMINI, EMBEDDING.path): GeminiEmbeddingSpeech,
    (EngineKind.COHERE, CHAT.path): CohereSpeech,
    (EngineKind.COHERE, EMBEDDING.path): CohereEmbeddingSpeech,
    (EngineKind.COHERE, RERANK.path): CohereRerankSpeech,
}
_NAMES = {EngineKind.ANTHROPIC: "Anthropic", EngineKind.GEMINI: "Google", EngineKind.COHERE: "Cohere"}


def providers_speech(kind: EngineKind, asked: Said) -> Speech:
    made = _SPEECHES.get((kind, asked.form.path))
    return made(asked) if made is not None else Unspoken(asked.form.path, _NAMES[kind])
