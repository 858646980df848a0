"""How an answer looks on the wire: OpenAI's chat and completions over SSE or JSON, Ollama's chat and generate over NDJSON
or JSON. One object per answer; when to send which part is the engine's business."""

from __future__ import annotations

import json
import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from tests.fakes.engine_composing import CallArguments, CallOpening, Piece, Speech, Thought
from tests.fakes.engine_flavours import Logprobs, Traits
from tests.fakes.engine_orders import Answer, Order, Usage, usage_of

Json = dict[str, Any]
LOGPROB = -0.5


class Dialect(Protocol):
    stream_type: str
    """Content type of a stream."""

    def preface(self) -> bytes:
        """Before anything of any choice."""
        ...

    def opening(self, choice: int) -> bytes: ...
    def token(self, choice: int, piece: Piece) -> bytes:
        """Empty where the piece shows nothing yet."""
        ...

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

    def __init__(self, order: Order, answers: Sequence[Answer], traits: Traits, *, tells_usage: bool) -> None:
        """`answers`: one for each prompt."""
        self.order = order
        self.answers = answers
        self.answer = answers[0]
        self.traits = traits
        self.usage = usage_of(order, answers, per_choice=traits.usage_per_choice) if tells_usage else None
        self._created = int(time.time())
        self._id = secrets.token_hex(12)

    def malformed(self) -> bytes:
        return b'data: {"choices":[{"index":0,\n\n'

    def preface(self) -> bytes:
        return b""

    def error(self, message: str) -> bytes:
        return sse({"error": {"message": message, "type": "server_error", "param": None, "code": 500}})

    def tail(self, *, done: bool) -> bytes:
        shared_usage = self.usage is not None and self.order.wants_usage and not self.traits.usage_per_choice
        return (self._usage_chunk() if shared_usage else b"") + (b"data: [DONE]\n\n" if done else b"")

    def _usage_chunk(self) -> bytes:
        return sse(self._envelope([]) | self._usage_field())

    def _usage_field(self) -> Json:
        return {} if self.usage is None else {"usage": openai_usage(self.usage, self.order.cached_tokens)}

    def _stop_reason(self, answer: Answer) -> Json:
        name = self.traits.stop_reason_field
        return {name: answer.stopped_by} if name and (answer.stopped_by is not None or self.traits.tells_nulls) else {}

    @abstractmethod
    def _envelope(self, choices: list[Json]) -> Json: ...


class OpenAIChat(_OpenAI):
    def opening(self, choice: int) -> bytes:
        return self._chunk(choice, {"role": "assistant", "content": self.traits.first_content})

    def token(self, choice: int, piece: Piece) -> bytes:
        match piece:
            case Thought(text):
                return self._chunk(choice, {self.traits.reasoning_field: text})
            case Speech(""):
                return b""
            case Speech(text):
                return self._chunk(choice, {"content": text}, **self._logprobs([text]))
            case CallOpening(index, name):
                return self._call_chunk(choice, self._call(choice, index, name, ""))
            case CallArguments(index, text):
                return self._call_chunk(choice, {"index": index, "function": {"arguments": text}})

    def closing(self, choice: int) -> bytes:
        own_usage = self.usage is not None and self.order.wants_usage and self.traits.usage_per_choice
        last = self._chunk(choice, {}, self._finish(), **self._stop_reason(self.answer))
        return last + (self._usage_chunk() if own_usage else b"")

    def whole(self) -> Json:
        choices = [
            {"index": choice, "message": self._message(choice), "finish_reason": self._finish()}
            | self._logprobs(spoken(self.answer))
            | self._stop_reason(self.answer)
            for choice in range(self.order.width)
        ]
        return self._envelope(choices) | {"object": "chat.completion"} | self._usage_field()

    def _message(self, choice: int) -> Json:
        calls = [self._call(choice, index, call.name, call.arguments) for index, call in enumerate(self.answer.calls)]
        says_nothing = not self.answer.text and (calls or self.answer.thoughts)
        message: Json = {"role": "assistant", "content": None if says_nothing else self.answer.text}
        if self.traits.tells_nulls:
            message |= {self.traits.reasoning_field: None, "tool_calls": None}
        if self.answer.thoughts:
            message[self.traits.reasoning_field] = self.answer.thoughts
        if calls:
            message["tool_calls"] = [{name: value for name, value in call.items() if name != "index"} for call in calls]
        return message

    def _call(self, choice: int, index: int, name: str, arguments: str) -> Json:
        function = {"name": name, "arguments": arguments}
        return {"index": index, "id": f"call_{self._id}{choice}{index}", "type": "function", "function": function}

    def _finish(self) -> str:
        """Calls that are complete have their own reason; cut short they are like any answer."""
        return "tool_calls" if self.answer.calls and self.answer.finish == "stop" else self.answer.finish

    def _logprobs(self, tokens: list[str]) -> Json:
        top = self.order.top_logprobs
        return {} if top is None else {"logprobs": {"content": [logprob(token, top) for token in tokens]}}

    def _call_chunk(self, choice: int, call: Json) -> bytes:
        return self._chunk(choice, {"tool_calls": [call]})

    def _chunk(self, choice: int, delta: Json, finish: str | None = None, **more: Any) -> bytes:
        if self.traits.tells_nulls:
            nothing = dict.fromkeys(("role", "content", self.traits.reasoning_field, "tool_calls"))
            delta, more = nothing | delta, {"logprobs": None} | more
        return sse(self._envelope([{"index": choice, "delta": delta, "finish_reason": finish, **more}]))

    def _envelope(self, choices: list[Json]) -> Json:
        return {
            "id": f"chatcmpl-{self._id}",
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self.order.model,
            "choices": choices,
        }


class OpenAICompletion(_OpenAI):
    def __init__(self, order: Order, answers: Sequence[Answer], traits: Traits, *, tells_usage: bool) -> None:
        super().__init__(order, answers, traits, tells_usage=tells_usage)
        self._told = [0] * order.width
        """Characters of each choice, of its prompt too if that is echoed."""

    def preface(self) -> bytes:
        return b"data: null\n\n" if self.traits.begins_lists_with_null and len(self.order.prompts) > 1 else b""

    def opening(self, choice: int) -> bytes:
        return b""

    def token(self, choice: int, piece: Piece) -> bytes:
        tokens = [piece.text] if isinstance(piece, Speech) and piece.text else []
        is_echo = self.order.echoes and not self._told[choice]
        if not tokens and not is_echo:
            return b""
        return sse(self._envelope([self._choice(choice, tokens, None, is_echo=is_echo)]))

    def closing(self, choice: int) -> bytes:
        answer = self._answer_of(choice)
        usage: Json = {}
        if self.traits.completions_always_tell_usage and self.usage is not None:
            read = self.order.prompt_tokens[choice // self.order.n]
            usage = {"usage": openai_usage(Usage(read, answer.tokens), self.order.cached_tokens)}
        return sse(self._envelope([self._choice(choice, [], answer.finish, is_echo=False)]) | usage)

    def tail(self, *, done: bool) -> bytes:
        if self.traits.completions_always_tell_usage:
            return b"data: [DONE]\n\n" if done else b""
        return super().tail(done=done)

    def whole(self) -> Json:
        choices = []
        for choice in range(self.order.width):
            answer = self._answer_of(choice)
            choices.append(self._choice(choice, spoken(answer), answer.finish, is_echo=self.order.echoes))
        return self._envelope(choices) | self._usage_field()

    def _answer_of(self, choice: int) -> Answer:
        return self.answers[choice // self.order.n]

    def _choice(self, choice: int, tokens: list[str], finish: str | None, *, is_echo: bool) -> Json:
        prompt = self.order.prompts[choice // self.order.n].text if is_echo else ""
        logprobs = self._logprobs(self._told[choice], prompt, tokens)
        text = prompt + "".join(tokens)
        self._told[choice] += len(text)
        told = {"index": choice, "text": text, "logprobs": logprobs, "finish_reason": finish}
        return told | (self._stop_reason(self._answer_of(choice)) if finish else {})

    def _logprobs(self, begin: int, prompt: str, tokens: list[str]) -> Json | None:
        """`begin`: the offset of the first of them."""
        top = self.order.top_logprobs
        if top is None or not (prompt or tokens):
            return None
        if self.traits.logprobs is Logprobs.AS_CHAT:
            return {"content": [logprob(token, top) for token in tokens]} if top else None
        read = re.findall(r"\S+\s*", prompt)
        offsets = [begin]
        for token in (*read, *tokens):
            offsets.append(offsets[-1] + len(token))
        likely = [{told["token"]: told["logprob"] for told in ranked(token, max(1, top))} for token in (*read, *tokens)]
        values: list[float | None] = [LOGPROB] * len(likely)
        # Nothing comes before the first token of a prompt, so that nothing says how likely it is.
        unknown = [None] if read else []
        return {
            "text_offset": offsets[:-1],
            "token_logprobs": [*unknown, *values][: len(likely)],
            "tokens": [*read, *tokens],
            "top_logprobs": [*unknown, *likely[len(unknown) :]],
        }

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

    def __init__(self, order: Order, answers: Sequence[Answer], traits: Traits, *, tells_usage: bool) -> None:
        self.order = order
        (self.answer,) = answers
        self.usage = usage_of(order, answers, per_choice=True) if tells_usage else None
        self._began_ns = time.monotonic_ns()

    def preface(self) -> bytes:
        return b""

    def opening(self, choice: int) -> bytes:
        return b""

    def token(self, choice: int, piece: Piece) -> bytes:
        match piece:
            case Thought(text):
                return self._part(self._says("", thoughts=text))
            case Speech(""):
                return b""
            case Speech(text):
                return self._part(self._says(text) | self._logprobs([text]))
            case CallArguments(index, is_last=True):  # a call comes whole
                return self._part(self._says("", calls=[self._call(index)]))
            case _:
                return b""

    def closing(self, choice: int) -> bytes:
        return b""

    def tail(self, *, done: bool) -> bytes:
        return ndjson(self._head() | self._says("") | self._end()) if done else b""

    def malformed(self) -> bytes:
        return b'{"model":"broken\n'

    def error(self, message: str) -> bytes:
        return ndjson({"error": message})

    def whole(self) -> Json:
        calls = [
            self._call(piece.index)
            for piece in self.answer.pieces
            if isinstance(piece, CallArguments) and piece.is_last
        ]
        said = self._says(self.answer.text, thoughts=self.answer.thoughts, calls=calls)
        return self._head() | said | self._logprobs(spoken(self.answer)) | self._end()

    def _part(self, said: Json) -> bytes:
        return ndjson(self._head() | said | {"done": False})

    def _call(self, index: int) -> Json:
        call = self.answer.calls[index]
        function = {"index": index, "name": call.name, "arguments": json.loads(call.arguments)}
        return {"id": f"call_{secrets.token_hex(4)}", "function": function}

    def _logprobs(self, tokens: list[str]) -> Json:
        top = self.order.top_logprobs
        return {} if top is None or not tokens else {"logprobs": [logprob(token, top) for token in tokens]}

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
    def _says(self, text: str, *, thoughts: str = "", calls: Sequence[Json] = ()) -> Json: ...


class OllamaChat(_Ollama):
    def _says(self, text: str, *, thoughts: str = "", calls: Sequence[Json] = ()) -> Json:
        message: Json = {"role": "assistant", "content": text}
        if thoughts:
            message["thinking"] = thoughts
        if calls:
            message["tool_calls"] = list(calls)
        return {"message": message}


class OllamaGenerate(_Ollama):
    def _says(self, text: str, *, thoughts: str = "", calls: Sequence[Json] = ()) -> Json:
        return {"response": text} | ({"thinking": thoughts} if thoughts else {})


def sse(event: Json) -> bytes:
    return b"data: " + compact(event) + b"\n\n"


def ndjson(event: Json) -> bytes:
    return compact(event) + b"\n"


def compact(event: Json) -> bytes:
    """Characters as themselves, not as escapes, as real engines write them; half a surrogate pair becomes `?`."""
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")


def openai_usage(usage: Usage, cached_tokens: int | None = None) -> Json:
    told: Json = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    return told if cached_tokens is None else told | {"prompt_tokens_details": {"cached_tokens": cached_tokens}}


def spoken(answer: Answer) -> list[str]:
    """The tokens that have log probabilities: those of the text that is shown."""
    return [piece.text for piece in answer.pieces if isinstance(piece, Speech) and piece.text]


def logprob(token: str, top: int) -> Json:
    """Of a token, which is the likeliest itself, and of `top` in all."""
    return _likely(token, LOGPROB) | {"top_logprobs": ranked(token, top)}


def ranked(token: str, top: int) -> list[Json]:
    others = [(f"other{i}", LOGPROB - i) for i in range(1, top)]
    return [_likely(text, value) for text, value in [(token, LOGPROB), *others][:top]]


def _likely(token: str, value: float) -> Json:
    return {"token": token, "logprob": value, "bytes": list(token.encode(errors="replace"))}


def ollama_time() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
