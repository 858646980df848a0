"""The items of a request's input as chat messages. Pure.

What is one message in chat comes here in several items: a turn of the assistant is its reasoning, its text and each of its
function calls. They are put together again, since chat templates expect a tool's output right after the message that
called it. Many templates also take a system message in one place only, the first: all of them go there, as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.fields import wrong_type
from forebay_gateway.canonical.typed import bad_value, demand_string, missing, objects_in, string_in
from forebay_gateway.dialects.responses.content import images_of, is_text, parts_in, texts_of
from forebay_gateway.dialects.responses.other_calls import as_functions
from forebay_gateway.dialects.responses.thoughts import Thoughts
from forebay_gateway.dialects.responses.truncation import OUTPUT_OF
from forebay_gateway.refused import BadField

_BLANK_LINE = "\n\n"


def messages_in(body: Json, before: Sequence[Json] = (), thoughts: Thoughts | None = None) -> list[Json]:
    """Of the fields `instructions` and `input`; at least one. `before`: items that go in front of the input's. `thoughts`:
    to reveal concealed reasoning with; without, it is passed over. Raises BadField."""
    conversation = _Conversation(string_in(body, "instructions"), thoughts)
    for place, item in enumerate(before):
        conversation.add(item, f"(kept)[{place}].")
    told = body.get("input")
    if isinstance(told, str):
        told = [{"role": "user", "content": told}]
    if told is None and before:
        told = []
    if told is None:
        raise missing("input", "send a text, or the conversation as a list of items")
    if not isinstance(told, list):
        raise wrong_type("input", "a string or a list of items", told)
    for place, item in enumerate(told):
        if not isinstance(item, dict):
            raise wrong_type(f"input[{place}]", "an object with a `type`", item)
        conversation.add(item, f"input[{place}].")
    if conversation.is_empty:
        raise bad_value("input", "`input` has nothing to answer: it needs at least one message.")
    return conversation.messages()


def check_items(items: list[Json], name: str, thoughts: Thoughts | None = None) -> None:
    """Each must be one that can be told to an engine. Raises BadField."""
    conversation = _Conversation(None, thoughts)
    for place, item in enumerate(items):
        conversation.add(item, f"{name}[{place}].")


class _Conversation:
    def __init__(self, instructions: str | None, thoughts: Thoughts | None = None) -> None:
        self._thoughts = thoughts
        self._system = [] if instructions is None else [instructions]
        self._messages: list[Json] = []
        self._reasoning: list[str] = []
        """Of the assistant's message that comes next."""
        self._images: list[Json] = []
        """That functions gave, with a word on whose they are. They wait until all outputs in a row have been told."""
        self.is_empty = True
        """Instructions alone ask for nothing."""

    def add(self, item: Json, at: str) -> None:
        told = as_functions(item, at)
        for one in (item,) if told is None else told:
            self._add(one, at)

    def _add(self, item: Json, at: str) -> None:
        match item.get("type"):
            case "message":
                self._add_message(item, at)
            case None if item.get("role") is not None:
                self._add_message(item, at)
            case "function_call":
                self._add_call(item, at)
            case "function_call_output":
                self._add_output(item, at)
            case "reasoning":
                self._add_reasoning(item, at)
                return
            case "item_reference":
                raise bad_value(
                    f"{at}type",
                    f"`{at}type` is item_reference, and here no items are looked up: send the item itself.",
                )
            case _:
                kind = demand_string(item, "type", at, "such as message, function_call or function_call_output")
                raise bad_value(
                    f"{at}type",
                    f'`{at}type` is "{kind[:40]}"; it can be message, reasoning, function_call, function_call_output, or '
                    "what another of OpenAI's tools did.",
                )
        self.is_empty = False

    def messages(self) -> list[Json]:
        self._tell_images()
        system = [{"role": "system", "content": _BLANK_LINE.join(self._system)}] if self._system else []
        return [*system, *self._messages]

    def _add_message(self, item: Json, at: str) -> None:
        role = demand_string(item, "role", at, "say who speaks: user, assistant, system or developer")
        parts = parts_in(item, "content", at)
        match role:
            case "user":
                self._reasoning.clear()  # its answer was never finished
                self._tell_images()
                self._messages.append({"role": "user", "content": _content(parts)})
            case "assistant":
                self._speak("".join(_only_texts(parts, role, at)))
            case "system" | "developer":
                self._system.append("\n".join(_only_texts(parts, role, at)))
            case _:
                raise bad_value(
                    f"{at}role", f'`{at}role` is "{role[:40]}"; it can be user, assistant, system or developer.'
                )

    def _speak(self, text: str) -> None:
        self._tell_images()
        turn = self._messages[-1] if self._messages else {}
        if "tool_calls" not in turn:  # else it is what the model said between two calls
            turn = {"role": "assistant", "content": None}
            self._messages.append(turn)
        turn["content"] = (turn["content"] or "") + text
        self._tell_reasoning(turn)

    def _add_call(self, item: Json, at: str) -> None:
        call = {
            "id": demand_string(item, "call_id", at, "it is the name by which the output refers to the call"),
            "type": "function",
            "function": {
                "name": demand_string(item, "name", at, "say which function was called"),
                "arguments": demand_string(item, "arguments", at, "send the call's arguments as a JSON text"),
            },
        }
        self._tell_images()
        turn = self._messages[-1] if self._messages else {}
        if turn.get("role") != "assistant":
            turn = {"role": "assistant", "content": None}
            self._messages.append(turn)
        turn.setdefault("tool_calls", []).append(call)
        self._tell_reasoning(turn)

    def _add_output(self, item: Json, at: str) -> None:
        call_id = demand_string(item, "call_id", at, "say which call this is the output of")
        parts = parts_in(item, "output", at)
        images = images_of(parts)
        if images:  # chat's tool messages are text
            self._images += [{"type": "text", "text": f"{OUTPUT_OF}{call_id}:"}, *images]
        self._messages.append({"role": "tool", "tool_call_id": call_id, "content": "\n".join(texts_of(parts))})

    def _add_reasoning(self, item: Json, at: str) -> None:
        """What was concealed is all of it, and what can be read perhaps a summary."""
        concealed = string_in(item, "encrypted_content", at)
        if concealed and self._thoughts is not None:
            self._reasoning.append(_revealed(concealed, self._thoughts, at))
            return
        for name in ("content", "summary"):
            texts = [
                demand_string(part, "text", f"{at}{name}[{place}].", "it is what the part says")
                for place, part in enumerate(objects_in(item, name, at))
            ]
            if texts:
                self._reasoning.append("\n".join(texts))
                return

    def _tell_reasoning(self, turn: Json) -> None:
        if self._reasoning:
            known = [turn["reasoning_content"]] if "reasoning_content" in turn else []
            turn["reasoning_content"] = "\n".join([*known, *self._reasoning])
            self._reasoning.clear()

    def _tell_images(self) -> None:
        if self._images:
            self._messages.append({"role": "user", "content": self._images})
            self._images = []


def _revealed(concealed: str, thoughts: Thoughts, at: str) -> str:
    """Raises BadField."""
    revealed = thoughts.reveal(concealed)
    if revealed is None:
        raise BadField(
            f"`{at}encrypted_content` cannot be read here: it was changed, is another server's, or was given to another "
            "user. Leave this item out.",
            param=f"{at}encrypted_content",
            code="invalid_encrypted_content",
        )
    return revealed


def _content(parts: list[Json]) -> Any:
    """A single text where it can be one: more engines and templates take that than a list."""
    return "\n".join(texts_of(parts)) if all(map(is_text, parts)) else parts


def _only_texts(parts: list[Json], role: str, at: str) -> list[str]:
    if images_of(parts):
        raise bad_value(
            f"{at}content",
            f"`{at}content` has an image, a sound or a file; in a message of role {role} there can be text only.",
        )
    return texts_of(parts)
