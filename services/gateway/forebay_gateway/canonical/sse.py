"""Server-sent events, split out of bytes as they come. Pure and incremental: what an event means is not known here.

Any mixture of line ends is understood, comments and blank events are dropped, and the bytes of an event are kept as they
came so that they can pass on unchanged. (The format: https://html.spec.whatwg.org/multipage/server-sent-events.html)"""

from __future__ import annotations

import re
from typing import NamedTuple

_END = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_LONGEST_END = 4


class EventTooLong(Exception):
    """An event grows beyond what is ever reasonable; nobody would ever see its end."""


class Event(NamedTuple):
    raw: bytes
    """As it came, its blank line included."""
    data: bytes
    """Its data lines, joined."""
    name: bytes = b""
    """Of its `event:` field."""


class Splitter:
    def __init__(self, longest: int = 16 << 20) -> None:
        self._pending = bytearray()
        self._searched = 0
        self._longest = longest
        self.is_between = True
        """No part of an event has come without its end."""

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that this chunk completes. Raises EventTooLong."""
        pending = self._pending
        if not pending and b"\r" not in chunk:
            *whole, rest = chunk.split(b"\n\n")  # the usual line end, of nearly every engine
            pending += rest
            self._note_searched()
            return [event for lines in whole if (event := _parse(lines + b"\n\n")) is not None]
        pending += chunk
        events: list[Event] = []
        begin = 0
        search = max(0, self._searched - _LONGEST_END + 1)
        while found := _END.search(pending, search):
            event = _parse(bytes(pending[begin : found.end()]))
            if event is not None:
                events.append(event)
            begin = search = found.end()
        if begin:
            del pending[:begin]
        self._note_searched()
        return events

    def _note_searched(self) -> None:
        self._searched = len(self._pending)
        self.is_between = not self._searched
        if self._searched > self._longest:
            raise EventTooLong

    def rest(self) -> Event | None:
        """What came after the last blank line, as an event: some servers leave the last blank line out."""
        rest = bytes(self._pending)
        self._pending.clear()
        self.is_between = True
        return _parse(rest + b"\n\n") if rest.strip() else None


def _parse(raw: bytes) -> Event | None:
    if raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2 and raw.endswith(b"\n\n") and b"\r" not in raw:
        return Event(raw, raw[6:-2])  # what nearly every event looks like
    data: list[bytes] = []
    name = b""
    for line in raw.removeprefix(b"\xef\xbb\xbf").splitlines():
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    if not data:
        return None
    if raw.endswith(b"\r\n\r"):
        raw += b"\n"  # which comes with the next bytes and is dropped there; without it some clients wait for the next event
    return Event(raw.lstrip(b"\r\n"), b"\n".join(data), name)
