"""Writes a response as it grows, as the events of OpenAI's Responses API.

Chat's pieces may mix what they add to; these events may not: one item at a time is open, and what comes for another waits
until that one has ended. Reasoning and messages end when something else begins. A call ends when its arguments are whole;
if they are not when something else begins, that and all after it waits for the end of the answer."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.dialects.responses.events import (
    Told,
    closing,
    delta,
    delta_head,
    ending,
    has_logprobs,
    opening,
    written,
)
from forebay_gateway.dialects.responses.items import CUSTOM, PARTS, TEXT, Called, NewId, Part, Spoken
from forebay_gateway.dialects.responses.said import (
    arguments_in,
    logprobs_in,
    object_in,
    objects_in,
    said_in,
    text_in,
)
from forebay_gateway.dialects.responses.snapshot import Snapshot, is_cut
from forebay_gateway.dialects.responses.telling import Telling, ToldItem
from forebay_gateway.dialects.responses.thoughts import Thoughts


class ResponseWriter:
    """A whole response is in its last event, so all that was said is kept until then."""

    def __init__(
        self,
        snapshot: Snapshot,
        named: NewId,
        *,
        told: Telling | None = None,
        thoughts: Thoughts | None = None,
        customs: Container[str] = (),
    ):
        """`told`: how the response was announced already. `thoughts`: to conceal the reasoning with, for a client that
        carries it. `customs`: names of the tools that take one text."""
        self._snapshot = snapshot
        self._named = named
        self._thoughts = thoughts
        self._customs = customs
        self.telling = told or Telling([])
        self._has_begun = False
        self._number = len(list(self.telling.events()))
        """Of the next event."""
        self._output: list[Json] = []
        """Items that have ended."""
        self._open: Spoken | Called | None = None
        self._grown: ToldItem
        """The open item, as it was told."""
        self._delta_head = b""
        """Of the open item too."""
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
        self._before_last, self._last_number = b"".join(out), self._number
        return self.end_again()

    def end_again(self) -> bytes:
        """What `end` gave, of a response that was changed since."""
        assert self.response is not None
        return self._before_last + written(ending(self.response), self._last_number)

    def broken(self, status: str, error: Json | None) -> Json | None:
        """The response as far as it came, when it will not come to its end. None when nothing of it was told."""
        if not self._has_begun:
            return None
        unfinished = [item for item in (self._open, *self._waiting) if item is not None]
        output = [*self._output, *(item.ended("incomplete") for item in unfinished)]
        return self._snapshot.broken(output, status, error)

    def fail(self, error: Json) -> tuple[bytes, Json, int]:
        """`error`: OpenAI's `code` and `message`. Gives what has to be told before the error is, the response as far as it
        came, and the number of the next event."""
        out: list[bytes] = []
        if not self._has_begun:
            self._begin({}, out)
        response = self.broken("failed", error)
        assert response is not None, "it has begun"
        return b"".join(out), response, self._number

    def _begin(self, chunk: Json, out: list[bytes]) -> None:
        self._has_begun = True
        self._snapshot.note_created(chunk)
        response = self._snapshot.begun()
        if not self._number:
            self._announce("response.created", response, out)
        self._announce("response.in_progress", response, out)

    def _announce(self, kind: str, response: Json, out: list[bytes]) -> None:
        told: Told = (kind, {"response": response})
        self.telling.announce(told)
        self._tell([told], out)

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
            last = Spoken(part, self._named(part.prefix), thoughts=self._thoughts)
        last.logprobs += logprobs
        self._grow(last, said, logprobs, out)

    def _call(self, piece: Json, out: list[bytes]) -> None:
        number = piece.get("index", len(self._calls))
        call = self._calls.get(number)
        if call is None:
            call = self._calls[number] = Called(self._named("fc"), text_in(piece, "id") or self._named("call"))
        function = object_in(piece, "function")
        if not call.name and (name := text_in(function, "name")):
            call.name = name
            if name in self._customs:
                call.become_custom(self._named(CUSTOM.prefix))
        arguments = call.readable(arguments_in(function))
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
                out.append(self._delta(said, logprobs))
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
        self._open, self._grown = item, ToldItem(item)
        self.telling.items.append(self._grown)
        self._tell(opening(item, index), out)
        self._delta_head = delta_head(item, index)
        if said := item.said:
            out.append(self._delta(said, list(item.logprobs) if isinstance(item, Spoken) else []))

    def _delta(self, said: str, logprobs: list[Json]) -> bytes:
        number, self._number = self._number, self._number + 1
        self._grown.grow(said, logprobs)
        return delta(self._delta_head, number, said, logprobs if has_logprobs(self._grown.item) else None)

    def _close(self, status: str, out: list[bytes]) -> None:
        item, self._open = self._open, None
        if item is None:
            return
        if isinstance(item, Called) and (rest := item.rest()):
            item.pieces.append(rest)
            out.append(self._delta(rest, []))
        item.has_ended = True
        self._grown.ended = ended = item.ended(status)
        self._tell(closing(item, len(self._output), ended), out)
        self._output.append(ended)

    def _tell(self, told: Iterable[Told], out: list[bytes]) -> None:
        for one in told:
            out.append(written(one, self._number))
            self._number += 1
