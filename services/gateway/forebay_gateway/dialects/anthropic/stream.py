"""Writes Anthropic's stream from OpenAI's chunks. Pure.

A message is a row of blocks, of which one is open at a time. Engines may alternate between texts and several tool calls, and
a call cannot be opened twice: so it stays open until its arguments are a whole JSON object, and what comes in between waits
behind it. Texts are closed as soon as something else comes; more text then makes another block."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.dialects.anthropic.message import (
    new_message,
    new_tool_use_id,
    thought_in,
    token_usage,
    usage_of,
    why_stopped,
)

_DELTA_HEADS = {
    "thinking": '{"type":"thinking_delta","thinking":',
    "text": '{"type":"text_delta","text":',
    "tool_use": '{"type":"input_json_delta","partial_json":',
}
_DELTA_TAIL = b"}}\n\n"


@dataclass(slots=True, eq=False)
class _Block:
    kind: str
    beginning: Json
    """As the client gets it when it opens."""
    unsent: list[str] = field(default_factory=list)

    @property
    def can_open(self) -> bool:
        return True

    @property
    def is_whole(self) -> bool:
        """Nothing more can belong to it."""
        return True


@dataclass(slots=True, eq=False)
class _ToolUse(_Block):
    arguments: list[str] = field(default_factory=list)
    """All pieces so far."""
    is_closed: bool = False

    @property
    def can_open(self) -> bool:
        return bool(self.beginning["name"])

    @property
    def is_whole(self) -> bool:
        if not self.arguments or not self.arguments[-1].rstrip().endswith("}"):
            return False
        try:
            return isinstance(orjson.loads("".join(self.arguments)), dict)
        except orjson.JSONDecodeError:
            return False

    def take(self, piece: Json) -> None:
        function = piece.get("function") or {}
        self.beginning["id"] = self.beginning["id"] or piece.get("id") or ""
        self.beginning["name"] = self.beginning["name"] or function.get("name") or ""
        arguments = function.get("arguments")
        if arguments:
            text = arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
            self.arguments.append(text)
            self.unsent.append(text)


class MessagesWriter:
    def __init__(self, model: str, estimated_prompt: int) -> None:
        """`model`: as the client called it. `estimated_prompt`: tokens, until the engine has counted."""
        self._model = model
        self._estimated_prompt = estimated_prompt
        self._has_begun = False
        self._index = 0
        """Of the block that is open, or else of the next."""
        self._open: _Block | None = None
        self._delta_head = b""
        """How each delta of the open block begins."""
        self._waiting: list[_Block] = []
        """Behind a tool call that is not whole."""
        self._calls: dict[int, _ToolUse] = {}
        self._finished: Json = {}
        """The choice as it was in the chunk with its finish reason."""

    def write(self, chunk: Json) -> bytes:
        out = b"" if self._has_begun else self._begin()
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            thought, text = thought_in(delta), delta.get("content")
            if thought and isinstance(thought, str):
                out += self._say("thinking", thought)
            if text and isinstance(text, str):
                out += self._say("text", text)
            for piece in delta.get("tool_calls") or ():
                out += self._call(piece)
            if choice.get("finish_reason"):
                self._finished = choice
        return out

    def end(self, usage: Json) -> bytes:
        out = [b"" if self._has_begun else self._begin()]
        if self._open is not None:
            out.append(self._close_block(self._open))
        for block in self._waiting:
            out += [self._open_block(block), self._rest_of(block), self._close_block(block)]
        stopped = why_stopped(self._finished, has_tool_use=bool(self._calls))
        out.append(_event("message_delta", delta=stopped, usage=usage_of(usage)))
        out.append(_event("message_stop"))
        return b"".join(out)

    def _begin(self) -> bytes:
        self._has_begun = True
        return _event("message_start", message=new_message(self._model, token_usage(self._estimated_prompt)))

    def _say(self, kind: str, text: str) -> bytes:
        if self._open is not None and self._open.kind == kind and not self._waiting:
            return self._delta(text)
        if not self._waiting or self._waiting[-1].kind != kind:
            empty = {"thinking": "", "signature": ""} if kind == "thinking" else {"text": ""}
            self._waiting.append(_Block(kind, {"type": kind, **empty}))
        self._waiting[-1].unsent.append(text)
        return self._go_on()

    def _call(self, piece: Json) -> bytes:
        index = piece.get("index")
        if not isinstance(index, int):  # some engines send whole calls and do not number them
            names_another = bool((piece.get("function") or {}).get("name"))
            index = len(self._calls) if names_another else len(self._calls) - 1
        call = self._calls.get(index)
        if call is None:
            call = self._calls[index] = _ToolUse("tool_use", {"type": "tool_use", "id": "", "name": "", "input": {}})
            self._waiting.append(call)
        call.take(piece)
        # After a whole object nothing can follow that would make sense.
        return b"" if call.is_closed else self._go_on()

    def _go_on(self) -> bytes:
        """Whatever can be said now."""
        out = []
        while True:
            if self._open is not None:
                out.append(self._rest_of(self._open))
                if not self._waiting or not self._open.is_whole:
                    break
                out.append(self._close_block(self._open))
            if not self._waiting or not self._waiting[0].can_open:
                break
            out.append(self._open_block(self._waiting.pop(0)))
        return b"".join(out)

    def _open_block(self, block: _Block) -> bytes:
        if isinstance(block, _ToolUse):
            block.beginning["id"] = block.beginning["id"] or new_tool_use_id()
        self._open = block
        delta = f'{{"type":"content_block_delta","index":{self._index},"delta":{_DELTA_HEADS[block.kind]}'
        self._delta_head = b"event: content_block_delta\ndata: " + delta.encode()
        return _event("content_block_start", index=self._index, content_block=block.beginning)

    def _rest_of(self, block: _Block) -> bytes:
        text = "".join(block.unsent)
        block.unsent.clear()
        return self._delta(text) if text else b""

    def _delta(self, text: str) -> bytes:
        return self._delta_head + orjson.dumps(text) + _DELTA_TAIL

    def _close_block(self, block: _Block) -> bytes:
        if isinstance(block, _ToolUse):
            block.is_closed = True
        index, self._open, self._index = self._index, None, self._index + 1
        return _event("content_block_stop", index=index)


def _event(kind: str, **told: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **told}))
