"""The chunks of one streamed answer mostly differ in nothing but the text that each adds. Pure.

What was found of one of them, read as a whole, holds for each that has the same bytes before its text and after it, and
between them a text that JSON writes as it is. Such a chunk need not be parsed, which is most of what it would cost. Anything
else is: a text with an escape, an end, an error, whatever is new."""

from __future__ import annotations

_MOST_UNUSED = 8
"""So often in a row something is learnt in vain: by then it is an engine whose chunks differ in more, such as a filling that
hides how long the text is."""


def framed(piece: bytes) -> bytes:
    """As one chunk of HTTP's chunked coding (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def is_framed(chunk: bytes, piece: bytes) -> bool:
    """Whether the chunk is just that piece's, whichever letters say its size."""
    size, _, rest = chunk.partition(b"\r\n")
    return size.lower() == b"%x" % len(piece) and rest == piece + b"\r\n"


def _frame_heads(sizes: int) -> tuple[bytes, ...]:
    """What the chunk begins with that has so many bytes in all."""
    heads = [b"\0"] * sizes  # where there is no such chunk
    for size in range(1, sizes):
        head = b"%x\r\n" % size
        if (whole := len(head) + size + 2) < sizes:
            heads[whole] = head
    return tuple(heads)


_HEADS = _frame_heads(2048)


class RepeatedChunk:
    __slots__ = ("_after", "_before", "_is_known", "_key", "_told_after", "_told_before", "_unused")

    def __init__(self, field: str) -> None:
        """`field`: in which a chunk has its text."""
        self._key = f'"{field}":'.encode()
        self._before = self._after = self._told_before = self._told_after = b""
        self._is_known = False
        self._unused = 0

    def told(self, raw: bytes) -> bytes | None:
        """What the client gets for this event, which adds a text that is not empty. None: it has to be looked into. `raw`
        must be one that nothing came before which belongs to it."""
        before, after = self._before, self._after
        if not self._is_known or not raw.startswith(before) or not raw.endswith(after):
            return None
        text = raw[len(before) : -len(after)]
        if not _is_written_as_it_is(text):
            return None
        self._unused = 0
        return raw if before is self._told_before else self._told_before + text + self._told_after

    def told_framed(self, chunk: bytes) -> bytes | None:
        """As `told`, of an event that came alone in one chunk of HTTP's chunked coding, and what the client gets in one
        likewise. None also for what is no such chunk."""
        size, after = len(chunk), self._after
        if size >= len(_HEADS) or not self._is_known:
            return None
        head = _HEADS[size]
        begin, end = len(head), size - 2 - len(after)
        if not (
            chunk.startswith(self._before, begin)
            and chunk.endswith(b"\r\n")
            and chunk.startswith(after, end)
            and (chunk.startswith(head) or chunk[:begin].lower() == head)
        ):
            return None
        text = chunk[begin + len(self._before) : end]
        if not _is_written_as_it_is(text):
            return None
        self._unused = 0
        return chunk if self._before is self._told_before else framed(self._told_before + text + self._told_after)

    @property
    def is_known(self) -> bool:
        """Something was learnt."""
        return self._is_known

    def learn(self, raw: bytes, text: object, told: bytes) -> None:
        """Of one that was looked into, which adds this text to its only choice, and neither ends that nor tells of usage.
        `told`: what the client got for it."""
        if self._unused >= _MOST_UNUSED or not isinstance(text, str):
            return
        self._unused += 1
        written = text.encode(errors="replace")
        if not _is_written_as_it_is(written):
            return
        around = self._around(raw, written)
        told_around = around if told is raw else self._around(told, written)
        if around is None or told_around is None:
            return
        self._before, self._after = around
        self._told_before, self._told_after = told_around
        self._is_known = True

    def _around(self, raw: bytes, written: bytes) -> tuple[bytes, bytes] | None:
        """What is before the text and after it. Without an escape anywhere, a quote begins or ends a text, so that the key
        of a field is nothing else; where there is one such key, it is that of the text."""
        if b"\\" in raw or raw.count(self._key) != 1:
            return None
        begin = raw.index(self._key) + len(self._key)
        begin += raw[begin : begin + 2].find(b'"') + 1  # some write a space before it
        end = begin + len(written)
        if raw[begin:end] != written or raw[begin - 1 : begin] != b'"' or raw[end : end + 1] != b'"':
            return None
        return raw[:begin], raw[end:]


def _is_written_as_it_is(text: bytes) -> bool:
    """It has a character at least and is UTF-8, and neither JSON nor the lines of a stream have an escape for any of it."""
    if not text or b'"' in text or b"\\" in text:
        return False
    try:
        return text.decode().isprintable()
    except UnicodeDecodeError:
        return False
