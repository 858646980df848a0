"""How many tokens a prompt has, asked of an engine that has the model. Nothing is generated, so no slot is asked for.

An engine that cannot say is not the client's trouble: then the number is estimated, and says so."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forebay.errors import ForebayError
from forebay_gateway.asked import Asked, NativeSpeech
from forebay_gateway.callers.call import Call
from forebay_gateway.canonical.speech import dumped
from forebay_gateway.dialects.anthropic.native import words_that_count
from forebay_gateway.engine_answer import TroubledEngine
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.engines.anthropic_request import conversation
from forebay_gateway.engines.gemini_request import generate_body
from forebay_gateway.engines.gemini_speech import address
from forebay_gateway.fleet import Backend, Fleet
from forebay_gateway.ledger.estimate import TokenRatios
from forebay_gateway.upstream import Upstream

log = logging.getLogger(__name__)

_WITHIN_S = 10.0
_COUNTS = ("count", "input_tokens", "totalTokens")
_OF_A_CHAT = ("messages", "tools", "chat_template_kwargs")


@dataclass(frozen=True, slots=True)
class Counted:
    count: int
    tokens: list[int] | None = None
    """Their numbers, where the engine told them."""
    is_estimate: bool = False


async def count_tokens(
    fields: Mapping[str, Any],
    *,
    model: str,
    pool: str,
    fleet: Fleet,
    upstream: Upstream,
    ratios: TokenRatios,
    call: Call,
    asked: Asked | None = None,
) -> Counted:
    """`fields`: a chat request in OpenAI's dialect, or one with a `prompt`. `asked`: the request that they are of, if it is
    one; some engines may know it in the client's own words."""
    for backend in fleet.serving(model, pool):
        if backend.is_unhealthy or (asked is not None and not asked.suits(backend.kind)):
            continue
        own = asked.native.get(backend.kind) if asked is not None else None
        try:
            counted = await _asked_of(backend, fields, own, backend.its_name_of(model), upstream, call)
        except (TroubledEngine, ForebayError) as error:
            log.debug(
                "tokens not counted", extra={"action": "count_failed", "backend": backend.id, "error": repr(error)}
            )
            continue
        if counted is not None:
            return counted
    text = {name: fields[name] for name in ("messages", "tools", "prompt") if fields.get(name)}
    return Counted(ratios.estimate(model, len(dumped(text))), is_estimate=True)


async def _asked_of(
    backend: Backend,
    fields: Mapping[str, Any],
    own: NativeSpeech | None,
    model: str,
    upstream: Upstream,
    call: Call,
) -> Counted | None:
    """None: engines of this kind cannot tell."""

    async def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await upstream.ask(
            backend, path, dumped(body), request_id=call.request_id, within_s=_WITHIN_S, said=call.said
        )

    chat = {name: fields[name] for name in _OF_A_CHAT if fields.get(name)}
    match backend.kind:
        case EngineKind.VLLM | EngineKind.SGLANG:
            text = {"prompt": fields["prompt"]} if "prompt" in fields else {**chat, "add_generation_prompt": True}
            told = await post("/tokenize", {"model": model, **text})
        case EngineKind.LLAMACPP:
            prompt = fields.get("prompt") or (await post("/apply-template", chat)).get("prompt")
            told = await post("/tokenize", {"content": prompt, "add_special": True, "parse_special": True})
        case EngineKind.ANTHROPIC:
            words = words_that_count(own.said) if own is not None else conversation(_as_chat(fields))
            told = await post("/v1/messages/count_tokens", {**words, "model": model})
        case EngineKind.GEMINI:
            whole = {"model": f"models/{model}", **generate_body(_as_chat(fields), model)}
            told = await post(address(model, "countTokens"), {"generateContentRequest": whole})
        case _:
            return None
    tokens = told.get("tokens")
    count = len(tokens) if isinstance(tokens, list) else None
    count = next((told[name] for name in _COUNTS if name in told), count)
    if not isinstance(count, int):
        return None
    return Counted(count, tokens if isinstance(tokens, list) else None)


def _as_chat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What is read of it; a prompt is what the user says."""
    asked = [{"role": "user", "content": fields["prompt"]}] if "prompt" in fields else fields["messages"]
    return {"messages": asked, **{name: fields[name] for name in ("tools", "tool_choice") if fields.get(name)}}
