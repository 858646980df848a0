"""What Cohere answers (v2), read into OpenAI's words: a chat into a completion, its events into chunks, vectors and rankings
into lists. Pure.

The events: https://docs.cohere.com/docs/streaming. Numbers of tokens come with a point there."""

from __future__ import annotations

from typing import Any

from forebay_gateway.canonical.dialect import Json

_FINISHES = {"MAX_TOKENS": "length", "TOOL_CALL": "tool_calls"}
_FAILURES = ("ERROR", "TIMEOUT")


class CohereReading:
    """Of one stream."""

    def __init__(self, created: int, model: str) -> None:
        """`created`: seconds since the epoch."""
        self._head: Json = {"id": "", "object": "chat.completion.chunk", "created": created, "model": model}
        self._calls: dict[Any, int] = {}
        """The number of a call by the number that its events have."""
        self._silent_calls: set[Any] = set()
        """Whose arguments have not begun."""
        self._has_role = False
        self.is_done = False
        self.prompt_tokens: int | None = None

    def read(self, event: Json) -> list[Json]:
        delta = _object(event.get("delta"))
        message = _object(delta.get("message"))
        match event.get("type"):
            case "message-start":
                self._head["id"] = event.get("id") or ""
            case "content-start" | "content-delta":
                return self._add(_object(message.get("content")))
            case "tool-plan-delta" if message.get("tool_plan"):
                return [self._chunk({"reasoning_content": message["tool_plan"]})]
            case "tool-call-start":
                return self._begin(event.get("index"), _object(message.get("tool_calls")))
            case "tool-call-delta":
                arguments = _object(_object(message.get("tool_calls")).get("function")).get("arguments")
                return self._argue(event.get("index"), arguments)
            case "tool-call-end" if event.get("index") in self._silent_calls:
                return self._argue(event.get("index"), "{}")
            case "message-end":
                return self._end(delta)
        return []  # citations have no place in OpenAI's chat

    def _add(self, content: Json) -> list[Json]:
        told = {"reasoning_content": content.get("thinking"), "content": content.get("text")}
        said = {name: text for name, text in told.items() if isinstance(text, str) and text}
        return [self._chunk(said)] if said else []

    def _begin(self, index: Any, call: Json) -> list[Json]:
        self._calls[index] = len(self._calls)
        told = _object(call.get("function"))
        arguments = told.get("arguments") or ""
        if not arguments:
            self._silent_calls.add(index)
        function = {"name": told.get("name"), "arguments": arguments}
        begun = {"index": self._calls[index], "id": call.get("id"), "type": "function", "function": function}
        return [self._chunk({"tool_calls": [begun]})]

    def _argue(self, index: Any, arguments: Any) -> list[Json]:
        if not isinstance(arguments, str) or not arguments or index not in self._calls:
            return []
        self._silent_calls.discard(index)
        return [self._chunk({"tool_calls": [{"index": self._calls[index], "function": {"arguments": arguments}}]})]

    def _end(self, delta: Json) -> list[Json]:
        failure = failure_of(delta)
        if failure:
            return [{"error": {"message": failure}}]
        self.is_done = True
        chunks = [self._chunk({}, finish_reason=_finish(delta))]
        usage = usage_of(_object(delta.get("usage")))
        if usage is not None:
            self.prompt_tokens = usage["prompt_tokens"]
            chunks.append({**self._head, "choices": [], "usage": usage})
        return chunks

    def _chunk(self, delta: Json, finish_reason: str | None = None) -> Json:
        # Nothing is said before the first of these, so that until then an error can still send the request elsewhere.
        if not self._has_role:
            self._has_role = True
            delta = {"role": "assistant", **delta}
        return {**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def completion_of(answer: Json, created: int, model: str) -> Json:
    """A `chat.completion`."""
    message = _object(answer.get("message"))
    content = message.get("content")
    blocks = [_object(block) for block in content] if isinstance(content, list) else []
    text = "".join(block.get("text") or "" for block in blocks if block.get("type") == "text")
    thought = "".join(block.get("thinking") or "" for block in blocks if block.get("type") == "thinking")
    given = message.get("tool_calls")
    calls = [_call(_object(call)) for call in given] if isinstance(given, list) else []
    plan = message.get("tool_plan")
    thought += plan if isinstance(plan, str) else ""
    said: Json = {"role": "assistant", "content": text or (None if calls else "")}
    if thought:
        said["reasoning_content"] = thought
    if calls:
        said["tool_calls"] = calls
    told: Json = {
        "id": answer.get("id") or "",
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "message": said, "logprobs": None, "finish_reason": _finish(answer)}],
    }
    usage = usage_of(_object(answer.get("usage")))
    return told if usage is None else {**told, "usage": usage}


def embeddings_of(answer: Json, model: str) -> Json:
    """OpenAI's list of embeddings."""
    vectors = _object(answer.get("embeddings")).get("float")
    listed = vectors if isinstance(vectors, list) else []
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(listed)]
    prompt = _count(_object(_object(answer.get("meta")).get("billed_units")), "input_tokens")
    return {
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": prompt, "total_tokens": prompt},
    }


def failure_of(told: Json) -> str:
    """Why an answer that has ended is none; empty: it is one."""
    error = told.get("error")
    if error or told.get("finish_reason") in _FAILURES:
        return str(error or f"It ended its answer with {told.get('finish_reason')}.")
    return ""


def usage_of(usage: Json) -> Json | None:
    """OpenAI's usage object. None: nothing was told."""
    told = _object(usage.get("tokens")) or _object(usage.get("billed_units"))
    if not told:
        return None
    prompt, completion = _count(told, "input_tokens"), _count(told, "output_tokens")
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": _count(usage, "cached_tokens")},
    }


def _call(call: Json) -> Json:
    told = _object(call.get("function"))
    function = {"name": told.get("name"), "arguments": told.get("arguments") or "{}"}
    return {"id": call.get("id"), "type": "function", "function": function}


def _finish(told: Json) -> str:
    return _FINISHES.get(str(told.get("finish_reason")), "stop")


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _count(told: Json, name: str) -> int:
    value = told.get(name)
    return round(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12 else 0
