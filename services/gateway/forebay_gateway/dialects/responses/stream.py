"""Writes a response as it grows, as the events of OpenAI's Responses API.

Chat's pieces may mix what they add to; these events may not: one item at a time is open, and what comes for another waits
until that one has ended. Reasoning and messages end when something else begins. A call ends when its arguments are whole;
if they are not when something else begins, that and all after it waits for the end of the answer."""

from __future__ import annotations

from typing import Any

import orjson

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.dialects.responses.items import PARTS, TEXT, Called, NewId, Part, Spoken
from forebay_gateway.dialects.responses.said import (
    arguments_in,
    logprobs_in,
    object_in,
    objects_in,
    said_in,
    text_in,
)
from forebay_gateway.dialects.responses.snapshot import Snapshot, is_cut


class ResponseWriter:
    """A whole response is in its last event, so all that was said is kept until then."""

    def __init__(self, snapshot: Snapshot, new_id: NewId) -> None:
        self._snapshot = snapshot
        self._new_id = new_id
        self._has_begun = False
        self._told = 0
        """Events so far."""
        self._output: list[Json] = []
        """Items that have ended."""
        self._open: Spoken | Called | None = None
        self._place: Json = {}
        """Of the open item, as its events tell it."""
        self._delta_head = b""
        """Of the open item too: a stream is little else than deltas, and they begin alike up to their number."""
        self._waiting: list[Spoken | Called] = []
        self._calls: dict[Any, Called] = {}
        """By chat's number."""
        self._finish_reason: str | None = None
        self.response: Json | None = None
        """As it ended."""
        self._before_last = b""
        """Of what the end told, all but its last event, and that one's number."""
        self._last_number = 0

    def write(self, chunk: Json) -> bytes:
        out: list[bytes] = []
        if not self._has_begun:
            self._begin(chunk, out)
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta")
            if isinstance(delta, dict):
                self._take(delta, choice, out)
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
        return b"".join(out)

    def end(self, usage: Json) -> bytes:
        out: list[bytes] = []
        if not self._has_begun:
            self._begin({}, out)
        nameless = [call for call in self._calls.values() if not call.name]
        for item in (*self._waiting, *nameless):
            self._turn_to(item, out)
        self._close("incomplete" if is_cut(self._finish_reason) else "completed", out)
        self.response = self._snapshot.ended(self._output, self._finish_reason, usage)
        self._before_last, self._last_number = b"".join(out), self._told
        return self.end_again()

    def end_again(self) -> bytes:
        """What `end` gave, of a response that was changed since."""
        assert self.response is not None
        self._told = self._last_number
        return self._before_last + self._event(f"response.{self.response['status']}", {"response": self.response})

    def broken(self, status: str, error: Json | None) -> Json | None:
        """The response as far as it came, when it will not come to its end. None when nothing of it was told."""
        if not self._has_begun:
            return None
        unfinished = [item for item in (self._open, *self._waiting) if item is not None]
        output = [*self._output, *(item.ended("incomplete") for item in unfinished)]
        return self._snapshot.broken(output, status, error)

    def _begin(self, chunk: Json, out: list[bytes]) -> None:
        self._has_begun = True
        self._snapshot.note_created(chunk)
        response = self._snapshot.begun()
        out.append(self._event("response.created", {"response": response}))
        out.append(self._event("response.in_progress", {"response": response}))

    # --- what a chunk says ------------------------------------------------------------------------------------------

    def _take(self, delta: Json, choice: Json, out: list[bytes]) -> None:
        for part in PARTS:
            if said := said_in(delta, part):
                self._speak(part, said, logprobs_in(choice) if part is TEXT else [], out)
        if "tool_calls" in delta:
            for piece in objects_in(delta, "tool_calls"):
                self._call(piece, out)

    def _speak(self, part: Part, said: str, logprobs: list[Json], out: list[bytes]) -> None:
        last = self._waiting[-1] if self._waiting else self._open
        if not isinstance(last, Spoken) or last.part is not part:
            last = Spoken(part, self._new_id(part.prefix))
        last.logprobs += logprobs
        self._grow(last, said, logprobs, out)

    def _call(self, piece: Json, out: list[bytes]) -> None:
        number = piece.get("index", len(self._calls))
        call = self._calls.get(number)
        if call is None:
            call = self._calls[number] = Called(self._new_id("fc"), text_in(piece, "id") or self._new_id("call"))
        function = object_in(piece, "function")
        call.name = call.name or text_in(function, "name")
        arguments = arguments_in(function)
        if call.name:
            self._grow(call, arguments, [], out)
        else:
            call.pieces.append(arguments)  # it cannot be announced without a name

    def _grow(self, item: Spoken | Called, said: str, logprobs: list[Json], out: list[bytes]) -> None:
        if item.has_ended:  # a call whose arguments are whole: an engine can only add blanks
            return
        item.pieces.append(said)
        if item is self._open:
            if said:
                out.append(self._delta(item, said, logprobs))
        elif item in self._waiting:
            pass
        elif not self._waiting and (self._open is None or self._open.is_whole()):
            self._turn_to(item, out)
        else:
            self._waiting.append(item)

    # --- what the client is told ------------------------------------------------------------------------------------

    def _turn_to(self, item: Spoken | Called, out: list[bytes]) -> None:
        self._close("completed", out)
        index = len(self._output)
        self._open, self._place = item, {"item_id": item.id, "output_index": index}
        out.append(self._event("response.output_item.added", {"output_index": index, "item": item.begun()}))
        if isinstance(item, Spoken):
            self._place["content_index"] = 0
            out.append(self._event("response.content_part.added", {**self._place, "part": item.part_with("", [])}))
        kind = "function_call_arguments" if isinstance(item, Called) else item.part.type
        self._delta_head = _head(f"response.{kind}.delta", self._place)
        if said := item.said:
            out.append(self._delta(item, said, item.logprobs if isinstance(item, Spoken) else []))

    def _delta(self, item: Spoken | Called, said: str, logprobs: list[Json]) -> bytes:
        number, self._told = self._told, self._told + 1
        told = orjson.dumps(said)
        if isinstance(item, Spoken) and item.part is TEXT:
            told += b',"logprobs":' + orjson.dumps(logprobs)
        return b'%b%d,"delta":%b}\n\n' % (self._delta_head, number, told)

    def _close(self, status: str, out: list[bytes]) -> None:
        item, self._open = self._open, None
        if item is None:
            return
        item.has_ended = True
        if isinstance(item, Called):
            told = {**self._place, "name": item.name, "arguments": item.said}
            out.append(self._event("response.function_call_arguments.done", told))
        else:
            part = item.part_with(item.said, item.logprobs)
            told = {name: value for name, value in part.items() if name not in ("type", "annotations")}
            out.append(self._event(f"response.{item.part.type}.done", {**self._place, **told}))
            out.append(self._event("response.content_part.done", {**self._place, "part": part}))
        ended = item.ended(status)
        out.append(self._event("response.output_item.done", {"output_index": len(self._output), "item": ended}))
        self._output.append(ended)

    def _event(self, kind: str, told: Json) -> bytes:
        number, self._told = self._told, self._told + 1
        body = orjson.dumps({"type": kind, "sequence_number": number, **told})
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), body)


def _head(kind: str, told: Json) -> bytes:
    """An event up to its number."""
    return b'event: %b\ndata: %b,"sequence_number":' % (kind.encode(), orjson.dumps({"type": kind, **told})[:-1])
