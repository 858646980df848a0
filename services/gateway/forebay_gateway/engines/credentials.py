"""How an engine is shown that Forebay may use it: a header of its kind, and never a part of the address. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from forebay_gateway.fleet import EngineKind

ANTHROPIC_VERSION = "2023-06-01"
"""What is said in OpenAI's words is translated to this version: later ones take no temperature, `top_p` and `top_k` from any
model (https://platform.claude.com/docs/en/api/versioning)."""
NOTHING: Mapping[str, str] = {}


def headers_for(kind: EngineKind, credential: str | None, anthropics: Mapping[str, str] = NOTHING) -> dict[str, str]:
    """`credential`: None for an engine that asks for none. `anthropics`: what an Anthropic client's headers say of its body;
    they pass to Anthropic as the body does."""
    match kind:
        case EngineKind.ANTHROPIC:
            shown = {"x-api-key": credential} if credential is not None else {}
            return {"anthropic-version": ANTHROPIC_VERSION, **anthropics, **shown}
        case EngineKind.GEMINI:
            return {"x-goog-api-key": credential} if credential is not None else {}
        case _:
            return {"authorization": f"Bearer {credential}"} if credential is not None else {}
