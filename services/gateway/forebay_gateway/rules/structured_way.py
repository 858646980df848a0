"""Which answers are believed to have the form that was asked for. Pure.

An engine that writes by a grammar need not be checked. What else calls itself compatible with OpenAI may take a schema and
leave it aside."""

from __future__ import annotations

from urllib.parse import urlsplit

from forebay_gateway.canonical.structured import WantedForm
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.fleet import Backend
from forebay_gateway.rules.model_rules import Structured

_KEEP_TO_FORMS = frozenset(
    (
        EngineKind.VLLM,
        EngineKind.SGLANG,
        EngineKind.LLAMACPP,
        EngineKind.OLLAMA,
        EngineKind.GEMINI,
        EngineKind.COHERE,
        EngineKind.AZURE,
    )
)
_OPENAIS = "api.openai.com"


def way_with(told: Structured | None, backend: Backend, wanted: WantedForm) -> Structured:
    """`told`: by a rule. Where none says anything, it goes by the engine."""
    if told is not None:
        return told
    return Structured.TRUST if _keeps_to(wanted, backend) else Structured.CHECK


def _keeps_to(wanted: WantedForm, backend: Backend) -> bool:
    if backend.kind is EngineKind.ANTHROPIC:
        return bool(wanted.schema)  # for JSON of any kind it is asked in words
    if backend.kind is EngineKind.OPENAI:
        return urlsplit(backend.url).hostname == _OPENAIS
    return backend.kind in _KEEP_TO_FORMS
