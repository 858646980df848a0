"""The tool calls of an answer. In OpenAI's dialect they come in fragments, their arguments as a text; in Ollama's each comes
whole, its arguments as an object. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import orjson

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.dialects.ollama.parts import text_in

_ID_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class GatheredCalls:
    """The calls of one answer, put together from what OpenAI's dialect says of them. Nonsense there is passed over."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}

    def add_fragments(self, told: Any) -> None:
        """`tool_calls` of a delta."""
        for fragment in _objects(told):
            self._add(fragment, fragment.get("index"))

    def add_whole(self, told: Any) -> None:
        """`tool_calls` of a message."""
        for index, call in enumerate(_objects(told)):
            self._add(call, index)

    def whole(self, answer_id: str, *, was_cut: bool) -> list[Json]:
        """In Ollama's words. `answer_id`: what ids are made from that the engine did not give. `was_cut`: the answer ended
        at its length; a call that is not whole then is left out, lest somebody act on the half of it."""
        told: list[Json] = []
        for call in self._calls:
            text = "".join(call.arguments)
            arguments = _object_in(text)
            if arguments is None:
                if was_cut:
                    continue
                arguments = {"arguments": text} if text.strip() else {}
            index = len(told)
            function = {"index": index, "name": call.name, "arguments": arguments}
            told.append({"id": call.id or made_id(answer_id, index), "function": function})
        return told

    def _add(self, told: Json, index: Any) -> None:
        function = told.get("function")
        function = function if isinstance(function, dict) else {}
        given_id, name = text_in(told, "id"), text_in(function, "name")
        call = self._call_of(index if isinstance(index, int) else None, given_id, is_named=bool(name))
        call.id, call.name = call.id or given_id, call.name or name
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            call.arguments.append(arguments)
        elif isinstance(arguments, dict):  # some engines do so, against OpenAI's contract
            call.arguments.append(_written(arguments))

    def _call_of(self, index: int | None, given_id: str, *, is_named: bool) -> _Call:
        known = self._by_index.get(index) if index is not None else next(reversed(self._calls), None)
        if known is not None:
            # Some engines number all their calls 0, others none; then the ids tell them apart, or that a name begins one.
            is_other = given_id != known.id if given_id and known.id else is_named and index is None
            if not is_other:
                return known
        call = _Call()
        self._calls.append(call)
        if index is not None:
            self._by_index[index] = call
        return call


def made_id(*origin: str | int) -> str:
    """As Ollama's ids look. The same for the same origin: an id made anew at each turn would change the beginning of the
    conversation, and with it what an engine has cached of it."""
    number = int.from_bytes(sha256("\x1f".join(map(str, origin)).encode()).digest()[:8], "little")
    letters = []
    for _ in range(8):
        number, rest = divmod(number, len(_ID_LETTERS))
        letters.append(_ID_LETTERS[rest])
    return f"call_{''.join(letters)}"


def _object_in(text: str) -> Json | None:
    """None when it is none, or is nested deeper than can be written again."""
    try:
        parsed = orjson.loads(text)
        orjson.dumps({"message": {"tool_calls": [{"function": {"arguments": parsed}}]}})
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _written(arguments: Json) -> str:
    try:
        return orjson.dumps(arguments).decode()
    except orjson.JSONEncodeError:  # nested deeper than can be written again
        return ""


def _objects(told: Any) -> list[Json]:
    return [each for each in told if isinstance(each, dict)] if isinstance(told, list) else []
