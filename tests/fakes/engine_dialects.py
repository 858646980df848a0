"""How an answer looks on the wire: OpenAI's chat and completions over SSE or JSON, Ollama's chat and generate over NDJSON
or JSON. One object per answer; when to send which part is the engine's business."""

from __future__ import annotations

import json
import secrets
import time
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import Any, Protocol

from tests.fakes.engine_flavours import Traits
from tests.fakes.engine_orders import Answer, Order, Usage

Json = dict[str, Any]


class Dialect(Protocol):
    stream_type: str
    """Content type of a stream."""

    def opening(self, choice: int) -> bytes: ...
    def token(self, choice: int, text: str) -> bytes: ...
    def closing(self, choice: int) -> bytes: ...
    def tail(self, *, done: bool) -> bytes:
        """What comes after every choice has closed; `done` False leaves the end mark out."""
        ...

    def malformed(self) -> bytes: ...
    def error(self, message: str) -> bytes:
        """An error in the middle of a stream."""
        ...

    def whole(self) -> Json: ...


class _OpenAI(ABC):
    stream_type = "text/event-stream"

    def __init__(self, order: Order, answer: Answer, traits: Traits, *, tells_usage: bool) -> None:
        self.order = order
        self.answer = answer
        self.traits = traits
        self.usage = answer.usage(order, per_choice=traits.usage_per_choice) if tells_usage else None
        self._created = int(time.time())
        self._id = secrets.token_hex(12)

    def malformed(self) -> bytes:
        return b'data: {"choices":[{"index":0,\n\n'

    def error(self, message: str) -> bytes:
        return sse({"error": {"message": message, "type": "server_error", "param": None, "code": 500}})

    def tail(self, *, done: bool) -> bytes:
        shared_usage = self.usage is not None and self.order.wants_usage and not self.traits.usage_per_choice
        return (self._usage_chunk() if shared_usage else b"") + (b"data: [DONE]\n\n" if done else b"")

    def _usage_chunk(self) -> bytes:
        return sse(self._envelope([]) | self._usage_field())

    def _usage_field(self) -> Json:
        return {} if self.usage is None else {"usage": openai_usage(self.usage)}

    @abstractmethod
    def _envelope(self, choices: list[Json]) -> Json: ...


class OpenAIChat(_OpenAI):
    def opening(self, choice: int) -> bytes:
        return self._chunk(choice, {"role": "assistant", "content": self.traits.first_content})

    def token(self, choice: int, text: str) -> bytes:
        return self._chunk(choice, {"content": text})

    def closing(self, choice: int) -> bytes:
        own_usage = self.usage is not None and self.order.wants_usage and self.traits.usage_per_choice
        return self._chunk(choice, {}, self.answer.finish) + (self._usage_chunk() if own_usage else b"")

    def whole(self) -> Json:
        message = {"role": "assistant", "content": self.answer.text}
        choices = [
            {"index": choice, "message": message, "finish_reason": self.answer.finish}
            for choice in range(self.order.width)
        ]
        return self._envelope(choices) | {"object": "chat.completion"} | self._usage_field()

    def _chunk(self, choice: int, delta: Json, finish: str | None = None) -> bytes:
        return sse(self._envelope([{"index": choice, "delta": delta, "finish_reason": finish}]))

    def _envelope(self, choices: list[Json]) -> Json:
        return {
            "id": f"chatcmpl-{self._id}",
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self.order.model,
            "choices": choices,
        }


class OpenAICompletion(_OpenAI):
    def opening(self, choice: int) -> bytes:
        return b""

    def token(self, choice: int, text: str) -> bytes:
        return sse(self._envelope([self._choice(choice, text, None)]))

    def closing(self, choice: int) -> bytes:
        usage = self._usage_field() if self.traits.completions_always_tell_usage else {}
        return sse(self._envelope([self._choice(choice, "", self.answer.finish)]) | usage)

    def tail(self, *, done: bool) -> bytes:
        if self.traits.completions_always_tell_usage:
            return b"data: [DONE]\n\n" if done else b""
        return super().tail(done=done)

    def whole(self) -> Json:
        choices = [self._choice(i, self.answer.text, self.answer.finish) for i in range(self.order.width)]
        return self._envelope(choices) | self._usage_field()

    @staticmethod
    def _choice(choice: int, text: str, finish: str | None) -> Json:
        return {"index": choice, "text": text, "logprobs": None, "finish_reason": finish}

    def _envelope(self, choices: list[Json]) -> Json:
        return {
            "id": f"cmpl-{self._id}",
            "object": "text_completion",
            "created": self._created,
            "model": self.order.model,
            "choices": choices,
        }


class _Ollama(ABC):
    stream_type = "application/x-ndjson"

    def __init__(self, order: Order, answer: Answer, traits: Traits, *, tells_usage: bool) -> None:
        self.order = order
        self.answer = answer
        self.usage = answer.usage(order, per_choice=True) if tells_usage else None
        self._began_ns = time.monotonic_ns()

    def opening(self, choice: int) -> bytes:
        return b""

    def token(self, choice: int, text: str) -> bytes:
        return ndjson(self._head() | self._text(text) | {"done": False})

    def closing(self, choice: int) -> bytes:
        return b""

    def tail(self, *, done: bool) -> bytes:
        return ndjson(self._head() | self._text("") | self._end()) if done else b""

    def malformed(self) -> bytes:
        return b'{"model":"broken\n'

    def error(self, message: str) -> bytes:
        return ndjson({"error": message})

    def whole(self) -> Json:
        return self._head() | self._text(self.answer.text) | self._end()

    def _head(self) -> Json:
        return {"model": self.order.model, "created_at": ollama_time()}

    def _end(self) -> Json:
        took = time.monotonic_ns() - self._began_ns
        end: Json = {
            "done": True,
            "done_reason": self.answer.finish,
            "total_duration": took,
            "load_duration": 1_000_000,
        }
        if self.usage is not None:
            end |= {
                "prompt_eval_count": self.usage.prompt_tokens,
                "prompt_eval_duration": took // 10,
                "eval_count": self.usage.completion_tokens,
                "eval_duration": took - took // 10,
            }
        return end

    @abstractmethod
    def _text(self, text: str) -> Json: ...


class OllamaChat(_Ollama):
    def _text(self, text: str) -> Json:
        return {"message": {"role": "assistant", "content": text}}


class OllamaGenerate(_Ollama):
    def _text(self, text: str) -> Json:
        return {"response": text}


def sse(event: Json) -> bytes:
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


def ndjson(event: Json) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


def openai_usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def ollama_time() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
