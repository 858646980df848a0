"""How an engine is shown that Forebay may use it: a header of its kind, and never a part of the address. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from forebay_gateway.engine_kind import EngineKind

ANTHROPIC_VERSION = "2023-06-01"
"""What is said in OpenAI's words is translated to this version: later ones take no temperature, `top_p` and `top_k` from any
model (https://platform.claude.com/docs/en/api/versioning)."""
NOTHING: Mapping[str, str] = {}
_PASSED = {
    EngineKind.ANTHROPIC: ("anthropic-version", "anthropic-beta"),
    EngineKind.OPENROUTER: ("http-referer", "x-title"),
}


def headers_for(kind: EngineKind, credential: str | None, said: Mapping[str, str] = NOTHING) -> dict[str, str]:
    """`credential`: None for an engine that asks for none. `said`: the client's headers that some engine may see; what an
    Anthropic client's say of its body passes to Anthropic as the body does, and the names of applications to OpenRouter."""
    told = {name: value for name, value in said.items() if name in _PASSED.get(kind, ())} if said else {}
    match kind:
        case EngineKind.ANTHROPIC:
            shown = {"x-api-key": credential} if credential is not None else {}
            return {"anthropic-version": ANTHROPIC_VERSION, **told, **shown}
        case EngineKind.GEMINI:
            return {"x-goog-api-key": credential} if credential is not None else {}
        case EngineKind.AZURE:
            return {"api-key": credential} if credential is not None else {}
        case _:
            return {**told, "authorization": f"Bearer {credential}"} if credential is not None else told
