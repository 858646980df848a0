"""The items that a response is made of, while they grow and when they have ended."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from secrets import token_hex

import orjson

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.dialects.responses.input_text import InputText
from forebay_gateway.dialects.responses.thoughts import Thoughts

NewId = Callable[[str], str]
"""From a prefix to a name that nothing else has."""


_NAMED_WITHIN = re.compile(r"[a-z]+_([0-9a-f]{32})[0-9a-f]{4,8}")


def new_id(prefix: str) -> str:
    return f"{prefix}_{token_hex(16)}"


def names_within(response_id: str) -> NewId:
    """For the items of one response, by whose names it can be found."""
    count = 0
    _, _, own = response_id.partition("_")

    def name(prefix: str) -> str:
        nonlocal count
        count += 1
        return f"{prefix}_{own}{count:04x}"

    return name


def response_with(item_id: str) -> str | None:
    """The id of the response in which an item was named; None when it was named elsewhere."""
    named = _NAMED_WITHIN.fullmatch(item_id)
    return f"resp_{named[1]}" if named else None


@dataclass(frozen=True, slots=True)
class Part:
    """The only part of an item that says something."""

    type: str
    """Also of its events."""
    told_as: tuple[str, ...]
    """In a chat message. The first of them that is there counts."""
    prefix: str
    """Of the item's name."""


REASONING = Part("reasoning_text", ("reasoning_content", "reasoning"), "rs")
"""Engines have one name for it or the other, and some send both, with the same text."""
TEXT = Part("output_text", ("content",), "msg")
REFUSAL = Part("refusal", ("refusal",), "msg")
PARTS = (REASONING, TEXT, REFUSAL)
"""In the order in which models say them."""


@dataclass(slots=True, eq=False)
class Spoken:
    """Reasoning, or a message."""

    part: Part
    id: str
    pieces: list[str] = field(default_factory=list)
    logprobs: list[Json] = field(default_factory=list)
    thoughts: Thoughts | None = None
    """To conceal it with: reasoning that its client wants to carry."""
    has_ended: bool = False

    @property
    def said(self) -> str:
        return "".join(self.pieces)

    def is_whole(self) -> bool:
        """Whatever comes next ends it."""
        return True

    def begun(self) -> Json:
        return self._item([], "in_progress")

    def grown(self) -> Json:
        """As far as it is there."""
        return self._item([self.part_with(self.said, self.logprobs)], "in_progress")

    def ended(self, status: str) -> Json:
        item = self._item([self.part_with(self.said, self.logprobs)], status)
        if self.part is REASONING and self.thoughts is not None:
            item["encrypted_content"] = self.thoughts.conceal(self.said)
        return item

    def part_with(self, said: str, logprobs: list[Json]) -> Json:
        part: Json = {"type": self.part.type, ("refusal" if self.part is REFUSAL else "text"): said}
        return {**part, "annotations": [], "logprobs": logprobs} if self.part is TEXT else part

    def _item(self, content: list[Json], status: str) -> Json:
        if self.part is REASONING:
            return {"id": self.id, "type": "reasoning", "summary": [], "content": content, "status": status}
        return {"id": self.id, "type": "message", "role": "assistant", "content": content, "status": status}


@dataclass(frozen=True, slots=True)
class CallKind:
    """What is called: the words that a client has for it."""

    type: str
    prefix: str
    said_as: str
    """The field of an item that has what the model gives it."""
    events: str


FUNCTION = CallKind("function_call", "fc", "arguments", "function_call_arguments")
CUSTOM = CallKind("custom_tool_call", "ctc", "input", "custom_tool_call_input")
"""A tool that takes one text."""
CALLS = (FUNCTION, CUSTOM)


@dataclass(slots=True, eq=False)
class Called:
    """A call."""

    id: str
    call_id: str
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    has_ended: bool = False
    kind: CallKind = FUNCTION
    text: InputText = field(default_factory=InputText)
    """Of a custom tool's."""

    @property
    def said(self) -> str:
        """The arguments, or the text."""
        return "".join(self.pieces)

    def become_custom(self, id: str) -> None:
        """Before anything of it was told."""
        arguments, self.id, self.kind = self.said, id, CUSTOM
        self.pieces = [self.readable(arguments)]

    def readable(self, arguments: str) -> str:
        """What a client gets of a piece of the arguments."""
        return self.text.feed(arguments) if self.kind is CUSTOM else arguments

    def rest(self) -> str:
        """What it still gets when no more comes."""
        return self.text.rest() if self.kind is CUSTOM else ""

    def is_whole(self) -> bool:
        """Arguments are an object: once that is closed, nothing can be added to it."""
        if self.kind is CUSTOM:
            return self.text.is_whole
        arguments = self.said
        if not arguments.lstrip().startswith("{"):
            return False
        try:
            orjson.loads(arguments)
        except orjson.JSONDecodeError:
            return False
        return True

    def begun(self) -> Json:
        return self._item("", "in_progress")

    def grown(self) -> Json:
        """As far as it is there."""
        return self._item(self.said, "in_progress")

    def ended(self, status: str) -> Json:
        return self._item(self.said, status)

    def _item(self, said: str, status: str) -> Json:
        return {
            "id": self.id,
            "type": self.kind.type,
            "call_id": self.call_id,
            "name": self.name,
            self.kind.said_as: said,
            "status": status,
        }
