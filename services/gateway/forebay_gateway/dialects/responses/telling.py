"""All that a client was told of one response, so that its events can be told again, each under the number it had. Pure.

An answer is not kept a second time for that: of each item only how its text was cut into pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.dialects.responses.events import (
    Told,
    closing,
    closings,
    delta,
    delta_head,
    ending,
    has_logprobs,
    opening,
    written,
)
from forebay_gateway.dialects.responses.items import CALLS, PARTS, REASONING, Called, Part, Spoken

UNFINISHED = ("queued", "in_progress")
"""How a response stands that has not ended."""


@dataclass(slots=True, eq=False)
class ToldItem:
    item: Spoken | Called
    deltas: list[str] = field(default_factory=list)
    logprobs: list[list[Json]] = field(default_factory=list)
    """Of each delta, where there is room for them."""
    ended: Json | None = None
    """None: it is open."""

    def grow(self, said: str, logprobs: list[Json]) -> None:
        self.deltas.append(said)
        if has_logprobs(self.item):
            self.logprobs.append(logprobs)

    def pieces(self) -> Json:
        """How it was cut: lengths in characters, and numbers of logprobs where there are any."""
        cut: Json = {"deltas": [len(said) for said in self.deltas]}
        if any(self.logprobs):
            cut["logprobs"] = [len(of) for of in self.logprobs]
        return cut


class Telling:
    """Its events, the first under 0 and none left out: what announces the response, each item in turn, the end."""

    def __init__(self, announced: list[Told]) -> None:
        self._heads = announced
        self.items: list[ToldItem] = []
        self.final: Json | None = None
        """The response as it ended."""

    def announce(self, told: Told) -> None:
        """Before any item."""
        self._heads.append(told)

    @property
    def has_begun(self) -> bool:
        """An engine has."""
        return self._heads[-1][0] == "response.in_progress"

    def events(self, after: int = -1) -> Iterator[tuple[int, bytes]]:
        """Those with greater numbers, as far as they have come about. May be stopped and gone on with: what has been told
        meanwhile is in it."""
        number = 0
        for told in self._heads:
            if number > after:
                yield number, written(told, number)
            number += 1
        for index, one in enumerate(self.items):
            for told in opening(one.item, index):
                if number > after:
                    yield number, written(told, number)
                number += 1
            head = delta_head(one.item, index)
            skipped = min(max(0, after + 1 - number), len(one.deltas))
            place = skipped
            while place < len(one.deltas):
                logprobs = one.logprobs[place] if one.logprobs else [] if has_logprobs(one.item) else None
                yield number + place, delta(head, number + place, one.deltas[place], logprobs)
                place += 1
            number += place
            if one.ended is None:
                break  # whatever comes next ends it, or the response has broken off in it
            closed = number + closings(one.item)
            if closed - 1 > after:
                for told in closing(one.item, index, one.ended):
                    if number > after:
                        yield number, written(told, number)
                    number += 1
            number = closed
        if self.final is not None and number > after:
            yield number, written(ending(self.final), number)

    # --- kept -------------------------------------------------------------------------------------------------------

    def so_far(self, announced: Json) -> Json:
        """The response as far as it has come. `announced`: as it was told first."""
        output = [one.item.grown() if one.ended is None else one.ended for one in self.items]
        return {**announced, "status": "in_progress" if self.has_begun else "queued", "output": output}

    def cuts(self) -> Json:
        """What has to be known beside the response to tell it again: see `telling_of`."""
        is_open = bool(self.items) and self.items[-1].ended is None
        return {"has_begun": self.has_begun, "items": [one.pieces() for one in self.items], "is_open": is_open}


def announcing(queued: Json) -> list[Told]:
    """A response in the background, before an engine has begun. `queued`: the response."""
    return [("response.created", {"response": queued}), ("response.queued", {"response": queued})]


def telling_of(response: Json, cuts: Json) -> Telling:
    """Of a response in the background, as it stands or as it ended."""
    is_over = response["status"] not in UNFINISHED
    nothing: Json = {"error": None, "incomplete_details": None, "output": [], "usage": None}
    announced = {**response, **nothing}
    telling = Telling(announcing({**announced, "status": "queued"}))
    if cuts["has_begun"]:
        telling.announce(("response.in_progress", {"response": {**announced, "status": "in_progress"}}))
    for item, pieces in zip(response["output"], cuts["items"], strict=False):  # what was never told comes last
        telling.items.append(_told(item, pieces))
    if cuts["is_open"]:
        telling.items[-1].ended = None
    telling.final = response if is_over else None
    return telling


def _told(ended: Json, pieces: Json) -> ToldItem:
    item = _item(ended)
    one = ToldItem(item, _cut(item.said, pieces["deltas"]), ended=ended)
    if isinstance(item, Spoken) and "logprobs" in pieces:
        one.logprobs = _cut(item.logprobs, pieces["logprobs"])
    return one


def _item(ended: Json) -> Spoken | Called:
    for kind in CALLS:
        if ended["type"] == kind.type:
            said = ended[kind.said_as]
            return Called(ended["id"], ended["call_id"], ended["name"], [said], has_ended=True, kind=kind)
    content = ended["content"][0]
    part = _part(content["type"])
    said = content["refusal"] if part.type == "refusal" else content["text"]
    return Spoken(part, ended["id"], [said], content.get("logprobs") or [], has_ended=True)


def _part(kind: str) -> Part:
    return next((part for part in PARTS if part.type == kind), REASONING)


def _cut(whole: Any, lengths: list[int]) -> list[Any]:
    pieces, at = [], 0
    for length in lengths:
        pieces.append(whole[at : at + length])
        at += length
    return pieces
