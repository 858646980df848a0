"""A stream on its way through: what is done with a piece in the loop turn in which it comes. Nothing is awaited here.

Nearly every piece is one event that adds a few letters, alone in its chunk of the chunked coding, as the client gets it too.
Such a piece passes as the bytes that it came in: seen, counted, and neither taken apart nor put together again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from forebay_gateway.canonical.answer_stream import StreamError
from forebay_gateway.canonical.repeated_chunk import RepeatedChunk
from forebay_gateway.canonical.speech import Stream
from forebay_gateway.engine_answer import EngineAnswer, TroubledEngine
from forebay_gateway.engines.errors import Blame, EngineTrouble, in_stream
from forebay_gateway.http_in.outgoing import Wire


class Hearing(Protocol):
    """The attempt whose answer it is."""

    @property
    def estimated_prompt(self) -> int:
        """Tokens."""
        ...

    def hear_of_piece(self, counted: int) -> bool:
        """`counted`: the tokens so far. True when the answer should be cut here."""
        ...

    def demand_bounded(self, size: int) -> None:
        """`size`: what came of a stream that is gathered, in bytes. Raises TroubledEngine."""
        ...


class Client(Protocol):
    """As much of a Reply as this needs."""

    @property
    def write_now(self) -> Callable[[bytes], bool]: ...
    @property
    def wire(self) -> Wire | None: ...


class Relayed:
    __slots__ = (
        "_answer",
        "_attempt",
        "_is_bounded",
        "_passes_framed",
        "_repeats",
        "_reply",
        "_size",
        "_wire",
        "_write_now",
        "out",
        "stream",
    )

    def __init__(
        self, attempt: Hearing, reply: Client, answer: EngineAnswer, stream: Stream, *, is_bounded: bool
    ) -> None:
        """`is_bounded`: it grows here, whether or not a client holds it back."""
        self._attempt, self._answer, self._is_bounded = attempt, answer, is_bounded
        self._reply, self._write_now = reply, reply.write_now
        self.stream = stream
        self._size = 0
        self.out = b""
        """What goes to the client, of the last piece, or of the cut."""
        self._passes_framed = False
        """Chunks come to `_pass_framed` first."""
        self._repeats: RepeatedChunk | None = None
        self._wire: Wire | None = None

    def hear(self, piece: bytes) -> None:
        """Raises TroubledEngine, or the ForebayError that the client gets."""
        stream = self.stream
        if self._is_bounded:
            self._size += len(piece)
            self._attempt.demand_bounded(self._size)
        self.out = stream.feed(piece) if piece else stream.end()
        if stream.error is not None and not stream.has_begun:
            raise before_answer(stream.error, self._answer)

    def go_on(self) -> None:
        """After the piece has gone out. Raises TroubledEngine."""
        stream = self.stream
        if stream.error is not None:
            raise TroubledEngine(EngineTrouble(Blame.FAILED, stream.error.message))
        if self._attempt.hear_of_piece(stream.counted) and stream.can_be_cut:
            self.out = stream.cut(self._attempt.estimated_prompt)

    def pass_now(self, piece: bytes) -> bool:
        """To the client, at once. True when it is over, or when the client must be waited for."""
        self.hear(piece)
        stream = self.stream
        if stream.is_done:
            return True
        is_full = bool(self.out) and self._write_now(self.out)
        self.go_on()
        if stream.is_done or is_full:
            self._passes_framed = False  # whoever stops pouring takes nothing framed either
            return True
        self._repeats = stream.repeats
        if (self._repeats is not None) is not self._passes_framed and not self._is_bounded:
            self._wire = self._reply.wire
            self._passes_framed = self._repeats is not None and self._wire is not None
            self._answer.pass_framed(self._pass_framed if self._passes_framed else None)
        return False

    def gather(self, piece: bytes) -> bool:
        """True when it is over."""
        self.hear(piece)
        if self.stream.error is not None:
            raise before_answer(self.stream.error, self._answer)
        if not self.stream.is_done:
            self.go_on()
        return self.stream.is_done

    def _pass_framed(self, chunk: bytes) -> bool:
        """`pass_now` for what came between two chunks, if it is one that repeats. False: it is not, and nothing was done."""
        repeats, wire, stream = self._repeats, self._wire, self.stream
        if repeats is None or wire is None or (told := repeats.told_framed(chunk)) is None:
            return False
        stream.counted += 1
        wire.write(told)
        if self._attempt.hear_of_piece(stream.counted):
            self.go_on()
        if stream.is_done or wire.is_full:
            self._passes_framed = False
            self._answer.stop_pouring()
        return True


def before_answer(error: StreamError, answer: EngineAnswer) -> Exception:
    """An engine's error when nothing of an answer has reached the client."""
    judged = in_stream(error.body, error.message, answer.shown_to)
    answer.was_none(judged)
    return TroubledEngine(judged) if isinstance(judged, EngineTrouble) else judged
