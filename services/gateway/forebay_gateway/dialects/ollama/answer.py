"""An engine's answer, from OpenAI's chunks and objects to Ollama's. Pure: the clock is an argument.

Durations are those that the client lived through, since other engines tell none: up to the first token it is the prompt's,
the wait for a slot included, and from there to the end the answer's, from which clients compute tokens per second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from forebay_gateway.canonical.answer_stream import read_usage
from forebay_gateway.canonical.dialect import Json
from forebay_gateway.dialects.ollama.logprobs import read_logprobs
from forebay_gateway.dialects.ollama.parts import (
    AnswerForm,
    Part,
    as_line,
    as_timestamp,
    nanoseconds,
    text_in,
    without_zeros,
)
from forebay_gateway.dialects.ollama.tool_calls import GatheredCalls


class AnswerTranslation:
    """To `/api/chat` or `/api/generate`."""

    def __init__(self, model: str, form: AnswerForm, now: Callable[[], float]) -> None:
        """`model`: as the client calls it. `now`: seconds since the epoch; the request arrived at this moment."""
        self._objects = _Objects(model, form, now)

    def rename(self, model: str) -> None:
        self._objects.model = model

    def whole(self, answer: Json) -> Json:
        """A `chat.completion` or a `text_completion`. When its first token came is not known, so that the whole time counts
        as the answer's."""
        choice = _only_choice(answer)
        reason = _done_reason(choice.get("finish_reason"))
        calls = GatheredCalls()
        calls.add_whole(_said(choice, "message").get("tool_calls"))
        part = _part_of(choice, "message")._replace(
            tool_calls=calls.whole(text_in(answer, "id"), was_cut=reason == "length")
        )
        logprobs = read_logprobs(choice.get("logprobs"))
        return self._objects.last(part, logprobs, reason, answer.get("usage"), self._objects.arrived)

    def writer(self, estimated_prompt: int) -> AnswerWriter:
        return AnswerWriter(self._objects)


class AnswerWriter:
    """One object a line; the last one has `done`."""

    def __init__(self, objects: _Objects) -> None:
        self._objects = objects
        self._calls = GatheredCalls()
        self._answer_id = ""
        self._finish: Any = None
        self._first_at: float | None = None

    def write(self, chunk: Json) -> bytes:
        choice = _only_choice(chunk)
        self._finish = choice.get("finish_reason") or self._finish
        self._answer_id = self._answer_id or text_in(chunk, "id")
        part, logprobs = _part_of(choice, "delta"), read_logprobs(choice.get("logprobs"))
        fragments = _said(choice, "delta").get("tool_calls")
        self._calls.add_fragments(fragments)
        says = bool(part.text or part.thinking or logprobs)
        if self._first_at is None and (says or fragments):
            self._first_at = self._objects.now()
        return as_line(self._objects.piece(part, logprobs)) if says else b""

    def end(self, usage: Json) -> bytes:
        reason = _done_reason(self._finish)
        calls = self._calls.whole(self._answer_id, was_cut=reason == "length")
        called = as_line(self._objects.piece(Part(tool_calls=calls), [])) if calls else b""
        first_at = self._objects.now() if self._first_at is None else self._first_at
        return called + as_line(self._objects.last(Part(), [], reason, usage, first_at))


class _Objects:
    """What all objects of one answer have in common."""

    def __init__(self, model: str, form: AnswerForm, now: Callable[[], float]) -> None:
        self.model, self._form, self.now = model, form, now
        self.arrived = now()

    def piece(self, part: Part, logprobs: list[Json]) -> Json:
        said = {"model": self.model, "created_at": as_timestamp(self.now()), **self._form.say(part), "done": False}
        return {**said, "logprobs": logprobs} if logprobs else said

    def last(self, part: Part, logprobs: list[Json], reason: str, usage: Any, first_at: float) -> Json:
        """`first_at`: when the first token came."""
        used, now = read_usage(usage), self.now()
        counts = {
            "total_duration": nanoseconds(now - self.arrived),
            "prompt_eval_count": used.prompt if used else 0,
            "prompt_eval_duration": nanoseconds(first_at - self.arrived),
            "eval_count": used.completion if used else 0,
            "eval_duration": nanoseconds(now - first_at),
        }
        return {**self.piece(part, logprobs), "done": True, "done_reason": reason, **without_zeros(counts)}


def _only_choice(answer: Json) -> Json:
    """Ollama's clients ask for one answer."""
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def _said(choice: Json, name: str) -> Json:
    """`name`: `delta` of a chunk, `message` of a whole answer. A `text_completion` has its text in the choice itself."""
    said = choice.get(name)
    return said if isinstance(said, dict) else {}


def _part_of(choice: Json, name: str) -> Part:
    said = _said(choice, name)
    # vLLM and llama.cpp call it `reasoning_content`, newer versions of vLLM and others `reasoning`.
    thinking = text_in(said, "reasoning_content") or text_in(said, "reasoning")
    return Part(text_in(said, "content") or text_in(choice, "text"), thinking)


def _done_reason(finish: Any) -> str:
    """Ollama knows no other; an answer that calls tools has stopped."""
    return "length" if finish == "length" else "stop"
