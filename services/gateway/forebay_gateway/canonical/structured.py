"""Answers that must be JSON, perhaps of a certain schema: what a request wants, and where an answer breaks it. Pure.

Works on what a choice of an answer says, whichever dialect it came in. An answer that was cut off, that refuses or that
calls a tool is none of this."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from forebay_gateway.accounting import Usage, UsageSource
from forebay_gateway.canonical.json_schema import USUAL_WORK, BadSchema, SchemaFault, compile_schema
from forebay_gateway.refused import BadField

Json = dict[str, Any]

MOST_TEXT = 1 << 20
"""Characters of an answer. A longer one is not judged, nor kept for that while it is streamed: to read it as JSON may take a
sixth of a second, in which nothing else goes on."""
_BROKEN_OFF = frozenset(("length", "content_filter", "tool_calls", "function_call", "abort", "error"))
_FENCE = "```"
_LONGEST_TAG = 16
_BY_TRUST = (UsageSource.ENGINE, UsageSource.COUNTED, UsageSource.ESTIMATED)


@dataclass(frozen=True, slots=True)
class WantedForm:
    """JSON."""

    schema: bytes = b""
    """That it keeps to, as JSON; empty: any JSON will do."""

    @property
    def in_words(self) -> str:
        """For a model whose engine cannot be held to it."""
        kept = f" that keeps to this JSON schema: {self.schema.decode()}" if self.schema else ""
        return f"Answer with JSON alone, without a code fence and with no words before or after it{kept}"

    def demand_readable(self, where: str) -> None:
        """`where`: the field with the schema, in the client's dialect. Raises BadField."""
        if not self.schema:
            return
        try:
            compile_schema(self.schema)
        except BadSchema as error:
            raise BadField(
                f"The schema in `{where}` cannot be used. {error}",
                param=f"{where}.{error.path}" if error.path else where,
                code="invalid_json_schema",
            ) from error

    def fault_in(self, text: str, most_work: int = USUAL_WORK) -> SchemaFault | None:
        """The schema must be a readable one. Raises TooMuchWork."""
        try:
            document = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            return SchemaFault("", f"it is not JSON: {error}" if text.strip() else "it is empty")
        return compile_schema(self.schema).fault_in(document, most_work) if self.schema else None


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice."""

    text: str
    is_whole: bool = True
    """It ended by itself, in words. Only then can it break anything."""


@dataclass(frozen=True, slots=True)
class AskedBefore:
    """Of an answer that was asked for again: what came of asking before."""

    usage: Usage
    """Of all times before."""
    place: int = 0
    """Of the choice that is asked for again."""
    choices: Sequence[Json] = ()
    """All there were, in OpenAI's dialect, if there was more than one."""


@dataclass(slots=True)
class Mending:
    """What is done to a whole answer before its client gets it."""

    unfences: bool = False
    before: AskedBefore | None = None

    def mend(self, told: Json) -> Json:
        """A `chat.completion` or `text_completion`. The same object when nothing is to be done."""
        if self.unfences:
            told = {**told, "choices": [_unfenced_choice(choice) for choice in told["choices"]]}
        if self.before is None:
            return told
        choices = told["choices"]
        if self.before.choices:
            place = self.before.place
            choices = [*self.before.choices]
            choices[place : place + 1] = [{**choice, "index": place} for choice in told["choices"][:1]]
        return {**told, "choices": choices, **added_usage(told, self.before.usage)}


@dataclass(slots=True)
class Gathered:
    """What each choice of an answer has said, as it comes in pieces."""

    _texts: dict[int, list[str]] = field(default_factory=dict)
    _broken_off: set[int] = field(default_factory=set)
    _size: int = 0

    def take(self, index: int, text: str, finish: Any = None, *, is_other: bool = False) -> None:
        """`finish`: OpenAI's reason, once it has one. `is_other`: it is no answer in words."""
        self._texts.setdefault(index, []).append(text)
        self._size += len(text)
        if self._size > MOST_TEXT:
            self._texts.clear()
        if is_other or finish in _BROKEN_OFF:
            self._broken_off.add(index)

    def take_choices(self, choices: Iterable[Any]) -> None:
        """Of one of OpenAI's chunks."""
        for choice in choices:
            delta = choice.get("delta")
            said = delta if isinstance(delta, dict) else choice
            text = said.get("content") or said.get("text")
            text = text if isinstance(text, str) else ""
            self.take(choice.get("index", 0), text, choice.get("finish_reason"), is_other=_is_other(said))

    def answers(self) -> list[Answer]:
        """By choice; none when there was too much."""
        if self._size > MOST_TEXT:
            return []
        return [Answer("".join(self._texts[at]), at not in self._broken_off) for at in sorted(self._texts)]


def wanted_form(fields: Mapping[str, Any]) -> WantedForm | None:
    """Of OpenAI's request, `response_format`. None: nothing that could be checked. A schema that is said not to be strict is
    a wish, and JSON is all that is held to."""
    wanted = fields.get("response_format")
    if not isinstance(wanted, dict):
        return None
    match wanted.get("type"):
        case "json_object":
            schema = wanted.get("schema")  # llama.cpp's, and some others'
            return _with_schema(schema) if isinstance(schema, dict) and schema else WantedForm()
        case "json_schema":
            described = wanted.get("json_schema")
            schema = described.get("schema") if isinstance(described, dict) else None
            if isinstance(described, dict) and described.get("strict") is False:
                return WantedForm()
            return _with_schema(schema) if isinstance(schema, dict) else None
    return None


def answers_in(told: Json) -> list[Answer]:
    """A `chat.completion` or `text_completion`."""
    answers = []
    for choice in told["choices"]:
        choice = choice if isinstance(choice, dict) else {}
        message = choice.get("message")
        said = message if isinstance(message, dict) else choice
        text = said.get("content") or said.get("text")
        is_whole = choice.get("finish_reason") not in _BROKEN_OFF and not _is_other(said)
        answers.append(Answer(text if isinstance(text, str) else "", is_whole))
    return answers


def unfenced(text: str) -> str:
    """The inside of one code fence, if that is all there is; models like to put JSON there."""
    stripped = text.strip()
    if not stripped.startswith(_FENCE) or not stripped.endswith(_FENCE):
        return text
    tag, newline, inside = stripped[len(_FENCE) : -len(_FENCE)].partition("\n")
    return inside.strip() if newline and len(tag) <= _LONGEST_TAG and _FENCE not in inside else text


def added_usage(told: Json, before: Usage) -> Json:
    """OpenAI's `usage` of an answer and of what was used before; nothing when its engine told none."""
    usage = told.get("usage")
    if not isinstance(usage, dict):
        return {}
    counts = {"prompt_tokens": before.prompt, "completion_tokens": before.completion}
    counts["total_tokens"] = before.prompt + before.completion
    return {"usage": {**usage, **{name: _count(usage.get(name)) + more for name, more in counts.items()}}}


def added(one: Usage, other: Usage) -> Usage:
    """The source is that of the one that knows less."""
    source = max(one.source, other.source, key=_BY_TRUST.index)
    return Usage(
        one.prompt + other.prompt,
        one.cached_prompt + other.cached_prompt,
        one.completion + other.completion,
        source,
    )


def _with_schema(schema: Json) -> WantedForm | None:
    try:
        return WantedForm(orjson.dumps(schema))
    except orjson.JSONEncodeError:  # deeper than can be written: it cannot be sent on either, which is told then
        return None


def _is_other(said: Json) -> bool:
    return any(said.get(name) for name in ("tool_calls", "function_call", "refusal"))


def _unfenced_choice(choice: Any) -> Any:
    message = choice.get("message") if isinstance(choice, dict) else None
    if isinstance(message, dict) and isinstance(message.get("content"), str):
        return {**choice, "message": {**message, "content": unfenced(message["content"])}}
    if isinstance(choice, dict) and isinstance(choice.get("text"), str):
        return {**choice, "text": unfenced(choice["text"])}
    return choice


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
