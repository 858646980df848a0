"""Cloud providers that are known by their hosts, and where below it their API begins. Pure.

Nobody has to say which one it is, and no key is shown to an address in order to find out."""

from __future__ import annotations

from urllib.parse import urlsplit

from forebay_registry.backend import EngineKind

_HOSTS = {
    "api.openai.com": EngineKind.OPENAI,
    "api.anthropic.com": EngineKind.ANTHROPIC,
    "generativelanguage.googleapis.com": EngineKind.GEMINI,
    "api.cohere.com": EngineKind.COHERE,
    "api.cohere.ai": EngineKind.COHERE,
    "openrouter.ai": EngineKind.OPENROUTER,
}
_AZURE = (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com")
_BEGINNINGS = {EngineKind.AZURE: "/openai", EngineKind.OPENROUTER: "/api"}


def provider_at(url: str) -> EngineKind | None:
    """`url`: as `catalog.normal_url` gives it. None: it is none of these."""
    host = urlsplit(url).hostname or ""
    return EngineKind.AZURE if host.endswith(_AZURE) else _HOSTS.get(host)


def base_of(url: str, kind: EngineKind | None) -> str:
    """The address to which `/v1/…` is added, also when only the host was named."""
    beginning = _BEGINNINGS.get(kind) if kind is not None else None
    return f"{url}{beginning}" if beginning is not None and not urlsplit(url).path else url
