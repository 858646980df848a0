"""What an answer consists of: thoughts, speech, calls of tools, each a token a piece. Pure, from wishes to pieces; how long
the answer may be and what stops it is `engine_orders`' business."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.fakes.engine_wishes import Call, Wishes

FRAGMENT_CHARACTERS = 4
THOUGHTS = ("Let", " me", " think", ".")


@dataclass(frozen=True, slots=True)
class Thought:
    text: str


@dataclass(frozen=True, slots=True)
class Speech:
    text: str
    """Empty where a stop string holds it back."""


@dataclass(frozen=True, slots=True)
class CallOpening:
    index: int
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    index: int
    text: str
    """A piece of the JSON."""
    is_last: bool


Piece = Thought | Speech | CallOpening | CallArguments


@dataclass(frozen=True, slots=True)
class Script:
    pieces: tuple[Piece, ...]
    goes_on: bool
    """The usual words follow. Otherwise the answer is complete, and `ignore_eos` makes it no longer."""


def compose(wishes: Wishes) -> Script:
    thoughts = tuple(Thought(text) for text in THOUGHTS) if wishes.thinks else ()
    if wishes.calls:
        calls = (piece for index, call in enumerate(wishes.calls) for piece in _calling(index, call))
        return Script((*thoughts, *calls), goes_on=False)
    text = _text(wishes)
    goes_on = text is None
    spoken = _sight(wishes.images) if text is None else text
    fragments = _fragments(spoken) or ([] if goes_on else [""])  # to say nothing takes a token, too
    return Script((*thoughts, *(Speech(fragment) for fragment in fragments)), goes_on)


def _text(wishes: Wishes) -> str | None:
    """The whole of what is said, if it is not the usual."""
    if wishes.document is not None:
        return wishes.document
    if wishes.results:
        return f"{_sight(wishes.images)}The tool said: {' '.join(wishes.results)}"
    return wishes.echo


def _sight(images: int) -> str:
    return f"I see {images} image{'s' if images > 1 else ''}. " if images else ""


def _calling(index: int, call: Call) -> Iterator[Piece]:
    yield CallOpening(index, call.name)
    *first, last = _fragments(call.arguments)
    for fragment in first:
        yield CallArguments(index, fragment, is_last=False)
    yield CallArguments(index, last, is_last=True)


def _fragments(text: str) -> list[str]:
    return [text[at : at + FRAGMENT_CHARACTERS] for at in range(0, len(text), FRAGMENT_CHARACTERS)]
