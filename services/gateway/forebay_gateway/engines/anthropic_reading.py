"""What Anthropic answers, read into OpenAI's words: a message into a chat completion, its events into chunks. Pure.

The events: https://platform.claude.com/docs/en/build-with-claude/streaming"""

from __future__ import annotations

from typing import Any

import orjson

from forebay_gateway.canonical.dialect import Json

_FINISHES = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class AnthropicReading:
    """Of one stream."""

    def __init__(self, created: int) -> None:
        """`created`: seconds since the epoch."""
        self._head: Json = {"id": "", "object": "chat.completion.chunk", "created": created, "model": ""}
        self._usage: Json = {}
        self._stopped: Json = {}
        self._calls: dict[Any, int] = {}
        """The number of the call that a block is, by the block's number."""
        self._silent_calls: set[Any] = set()
        """Blocks of calls whose arguments have not begun."""
        self._has_role = False
        self.is_done = False
        self.prompt_tokens: int | None = None

    def read(self, event: Json) -> list[Json]:
        match event.get("type"):
            case "message_start":
                message = _object(event.get("message"))
                self._head |= {"id": message.get("id") or "", "model": message.get("model") or ""}
                self._note_usage(message)
            case "content_block_start":
                return self._begin(event.get("index"), _object(event.get("content_block")))
            case "content_block_delta":
                return self._go_on(event.get("index"), _object(event.get("delta")))
            case "content_block_stop" if event.get("index") in self._silent_calls:
                return self._argue(event.get("index"), "{}")
            case "message_delta":
                self._note_usage(event)
                self._stopped = _object(event.get("delta"))
            case "message_stop":
                self.is_done = True
                return [
                    self._chunk({}, **finish_of(self._stopped)),
                    {**self._head, "choices": [], "usage": usage_of(self._usage)},
                ]
        return []

    def _begin(self, index: Any, block: Json) -> list[Json]:
        match block.get("type"):
            case "tool_use":
                self._calls[index] = len(self._calls)
                self._silent_calls.add(index)
                function = {"name": block.get("name"), "arguments": ""}
                call = {"index": self._calls[index], "id": block.get("id"), "type": "function", "function": function}
                return [self._chunk({"tool_calls": [call]})]
            case "text" if block.get("text"):
                return [self._chunk({"content": block["text"]})]
            case "thinking" if block.get("thinking"):
                return [self._chunk({"reasoning_content": block["thinking"]})]
        return []

    def _go_on(self, index: Any, delta: Json) -> list[Json]:
        match delta.get("type"):
            case "text_delta" if delta.get("text"):
                return [self._chunk({"content": delta["text"]})]
            case "thinking_delta" if delta.get("thinking"):
                return [self._chunk({"reasoning_content": delta["thinking"]})]
            case "input_json_delta" if delta.get("partial_json") and index in self._calls:
                return self._argue(index, delta["partial_json"])
        return []  # signatures and citations have no place in OpenAI's chat

    def _argue(self, index: Any, arguments: str) -> list[Json]:
        self._silent_calls.discard(index)
        return [self._chunk({"tool_calls": [{"index": self._calls[index], "function": {"arguments": arguments}}]})]

    def _chunk(self, delta: Json, **more: Any) -> Json:
        # Nothing is said before the first of these, so that until then an error can still send the request elsewhere.
        if not self._has_role:
            self._has_role = True
            delta = {"role": "assistant", **delta}
        return {**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": None, **more}]}

    def _note_usage(self, told: Json) -> None:
        self._usage |= {name: value for name, value in _object(told.get("usage")).items() if value is not None}
        if _count(self._usage, "input_tokens"):
            self.prompt_tokens = usage_of(self._usage)["prompt_tokens"]


def completion_of(message: Json, created: int) -> Json:
    """A `chat.completion`."""
    blocks = [_object(block) for block in message["content"]]
    text = "".join(block.get("text") or "" for block in blocks if block.get("type") == "text")
    thought = "".join(block.get("thinking") or "" for block in blocks if block.get("type") == "thinking")
    calls = [_call(block) for block in blocks if block.get("type") == "tool_use"]
    said: Json = {"role": "assistant", "content": text or (None if calls else "")}
    if thought:
        said["reasoning_content"] = thought
    if calls:
        said["tool_calls"] = calls
    return {
        "id": message.get("id") or "",
        "object": "chat.completion",
        "created": created,
        "model": message.get("model") or "",
        "choices": [{"index": 0, "message": said, "logprobs": None, **finish_of(message)}],
        "usage": usage_of(_object(message.get("usage"))),
    }


def finish_of(stopped: Json) -> Json:
    """`finish_reason` and, if a stop sequence was it, which one: as vLLM tells it, beside the reason."""
    why, matched = stopped.get("stop_reason"), stopped.get("stop_sequence")
    finish: Json = {"finish_reason": _FINISHES.get(str(why), "stop")}
    return {**finish, "stop_reason": matched} if isinstance(matched, str) else finish


def usage_of(usage: Json) -> Json:
    """OpenAI's usage object, in which tokens that were read from a cache, or written to it, are part of the prompt."""
    cached = _count(usage, "cache_read_input_tokens")
    prompt = _count(usage, "input_tokens") + _count(usage, "cache_creation_input_tokens") + cached
    completion = _count(usage, "output_tokens")
    told: Json = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    thinking = _count(_object(usage.get("output_tokens_details")), "thinking_tokens")
    return told | ({"completion_tokens_details": {"reasoning_tokens": thinking}} if thinking else {})


def _call(block: Json) -> Json:
    function = {"name": block.get("name"), "arguments": orjson.dumps(_object(block.get("input"))).decode()}
    return {"id": block.get("id"), "type": "function", "function": function}


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _count(told: Json, name: str) -> int:
    value = told.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
