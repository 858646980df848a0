"""What Gemini answers, read into OpenAI's words: an answer into a chat completion, pieces of one into chunks. Pure.

A stream has no end mark: it is whole when each candidate told why it finished. Function calls come whole, with a signature
that Gemini wants to see again; it travels where Google's own OpenAI-compatible API has it.
(https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse)"""

from __future__ import annotations

import secrets
from typing import Any

import orjson

from forebay_gateway.canonical.dialect import Json

_CUT_SHORT = "MAX_TOKENS"
_OF_ITSELF = ("STOP", "FINISH_REASON_UNSPECIFIED", "OTHER", "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL")
"""All others are filters: SAFETY, RECITATION, BLOCKLIST, PROHIBITED_CONTENT …"""


class GeminiReading:
    """Of one stream."""

    def __init__(self, created: int, candidates: int) -> None:
        """`created`: seconds since the epoch."""
        self._created = created
        self._calls = dict.fromkeys(range(candidates), 0)
        """Made so far, of each candidate."""
        self._open = set(range(candidates))
        self._silent = set(range(candidates))
        """Candidates that have said nothing yet."""
        self._has_told_usage = False
        self._candidates = candidates
        self.is_done = False
        self.prompt_tokens: int | None = None

    def read(self, event: Json) -> list[Json]:
        head = _head(event, "chat.completion.chunk", self._created)
        choices = [choice for candidate in _candidates(event) for choice in self._choices(candidate)]
        if _is_blocked(event):
            choices = [_choice(index, {"role": "assistant"}, "content_filter") for index in sorted(self._open)]
            self._open.clear()
        usage = usage_of(_object(event.get("usageMetadata")))
        chunks = [{**head, "choices": [choice]} for choice in choices]
        if usage is not None:
            self.prompt_tokens = usage["prompt_tokens"]
            # Each piece tells what was used so far; several candidates must not be counted twice.
            if not self._open and (self._candidates == 1 or not self._has_told_usage):
                self._has_told_usage = True
                chunks.append({**head, "choices": [], "usage": usage})
        return chunks

    def _choices(self, candidate: Json) -> list[Json]:
        index = _index(candidate)
        if index not in self._open:
            return []
        choices = [_choice(index, delta, None) for part in _parts(candidate) for delta in self._deltas(index, part)]
        why = candidate.get("finishReason")
        if why:
            self._open.discard(index)
            choices.append(_choice(index, {}, _finish(why, has_calls=self._calls[index] > 0)))
        if choices and index in self._silent:
            self._silent.discard(index)
            choices[0]["delta"] = {"role": "assistant", **choices[0]["delta"]}
        return choices

    def _deltas(self, index: int, part: Json) -> list[Json]:
        if isinstance(part.get("functionCall"), dict):
            number = self._calls[index]
            self._calls[index] += 1
            return [{"tool_calls": [{"index": number, **_call(part)}]}]
        text = part.get("text")
        if not isinstance(text, str) or not text:
            return []
        return [{"reasoning_content" if part.get("thought") is True else "content": text}]


def completion_of(answer: Json, created: int) -> Json:
    """A `chat.completion`."""
    choices = [_whole_choice(candidate) for candidate in _candidates(answer)]
    if _is_blocked(answer):
        message = {"role": "assistant", "content": ""}
        choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": "content_filter"}]
    usage = usage_of(_object(answer.get("usageMetadata")))
    told = {**_head(answer, "chat.completion", created), "choices": choices}
    return told if usage is None else {**told, "usage": usage}


def embeddings_of(answer: Json, model: str) -> Json:
    """OpenAI's list of embeddings."""
    vectors = [_object(embedding).get("values") for embedding in answer["embeddings"]]
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    prompt = _count(_object(answer.get("usageMetadata")), "promptTokenCount")
    usage = {"prompt_tokens": prompt, "total_tokens": prompt}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def usage_of(told: Json) -> Json | None:
    """OpenAI's usage object, in which thoughts are part of the completion. None: nothing was told."""
    if "promptTokenCount" not in told and "totalTokenCount" not in told:
        return None
    prompt, thoughts = _count(told, "promptTokenCount"), _count(told, "thoughtsTokenCount")
    completion = _count(told, "candidatesTokenCount") + thoughts
    usage: Json = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": _count(told, "cachedContentTokenCount")},
    }
    return usage | ({"completion_tokens_details": {"reasoning_tokens": thoughts}} if thoughts else {})


def _whole_choice(candidate: Json) -> Json:
    parts = _parts(candidate)
    texts = [part for part in parts if isinstance(part.get("text"), str)]
    text = "".join(part["text"] for part in texts if part.get("thought") is not True)
    thought = "".join(part["text"] for part in texts if part.get("thought") is True)
    calls = [_call(part) for part in parts if isinstance(part.get("functionCall"), dict)]
    message: Json = {"role": "assistant", "content": text or (None if calls else "")}
    if thought:
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = calls
    finish = _finish(candidate.get("finishReason"), has_calls=bool(calls))
    return {"index": _index(candidate), "message": message, "logprobs": None, "finish_reason": finish}


def _call(part: Json) -> Json:
    told = part["functionCall"]
    arguments = orjson.dumps(_object(told.get("args"))).decode()
    call: Json = {
        "id": told.get("id") or f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": told.get("name"), "arguments": arguments},
    }
    signature = part.get("thoughtSignature")
    return {**call, "extra_content": {"google": {"thought_signature": signature}}} if signature else call


def _finish(why: Any, *, has_calls: bool) -> str:
    if why == _CUT_SHORT:
        return "length"
    if why and why not in _OF_ITSELF:
        return "content_filter"
    return "tool_calls" if has_calls else "stop"


def _head(answer: Json, kind: str, created: int) -> Json:
    id, model = answer.get("responseId") or "", answer.get("modelVersion") or ""
    return {"id": id, "object": kind, "created": created, "model": model}


def _choice(index: int, delta: Json, finish: str | None) -> Json:
    return {"index": index, "delta": delta, "finish_reason": finish}


def _candidates(answer: Json) -> list[Json]:
    listed = answer.get("candidates")
    return [_object(candidate) for candidate in listed] if isinstance(listed, list) else []


def _parts(candidate: Json) -> list[Json]:
    parts = _object(candidate.get("content")).get("parts")
    return [_object(part) for part in parts] if isinstance(parts, list) else []


def _is_blocked(answer: Json) -> bool:
    """The question, before there was an answer."""
    return bool(_object(answer.get("promptFeedback")).get("blockReason"))


def _index(candidate: Json) -> int:
    return _count(candidate, "index")  # zero is left out


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _count(told: Json, name: str) -> int:
    value = told.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
