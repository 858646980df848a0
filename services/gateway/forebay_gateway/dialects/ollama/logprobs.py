"""Log probabilities: OpenAI's in the two forms that its answers have, to the one list of Ollama's. Pure."""

from __future__ import annotations

from typing import Any

from forebay_gateway.canonical.dialect import Json


def read_logprobs(told: Any) -> list[Json]:
    """`logprobs` of a choice, one entry for each token; what is nonsense there is passed over."""
    if not isinstance(told, dict):
        return []
    content = told.get("content")
    if isinstance(content, list):
        return [entry for each in content if (entry := _entry(each))]
    return _of_completion(told)


def _entry(told: Any) -> Json:
    entry = _token(told)
    if entry and isinstance(told.get("top_logprobs"), list):
        top = [token for each in told["top_logprobs"] if (token := _token(each))]
        if top:
            entry["top_logprobs"] = top
    return entry


def _token(told: Any) -> Json:
    if not isinstance(told, dict) or not isinstance(told.get("token"), str) or not _is_number(told.get("logprob")):
        return {}
    entry = {"token": told["token"], "logprob": told["logprob"]}
    octets = told.get("bytes")
    is_told = isinstance(octets, list) and all(isinstance(octet, int) for octet in octets)
    return {**entry, "bytes": octets} if is_told else entry


def _of_completion(told: Json) -> list[Json]:
    """`text_completion` has parallel lists, and an object of candidates for each token."""
    tokens, numbers, tops = (_list(told.get(name)) for name in ("tokens", "token_logprobs", "top_logprobs"))
    entries = []
    for place, (token, number) in enumerate(zip(tokens, numbers, strict=False)):
        if not isinstance(token, str) or not _is_number(number):
            continue  # the first token of an echoed prompt has none
        entry = _with_bytes(token, number)
        top = tops[place] if place < len(tops) else None
        if isinstance(top, dict) and top:
            entry["top_logprobs"] = [_with_bytes(name, each) for name, each in top.items() if _is_number(each)]
        entries.append(entry)
    return entries


def _with_bytes(token: str, number: float) -> Json:
    return {"token": token, "logprob": number, "bytes": list(token.encode())}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
