"""The events of a response, as its client gets them. Pure: which of them there are, and when, is others' business."""

from __future__ import annotations

import orjson

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.dialects.responses.items import FUNCTION, TEXT, Called, Spoken

Told = tuple[str, Json]
"""What an event is called, and what it says beside its number."""


def written(told: Told, number: int) -> bytes:
    kind, said = told
    body = orjson.dumps({"type": kind, "sequence_number": number, **said})
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), body)


def place_of(item: Spoken | Called, index: int) -> Json:
    """How the events of an item tell which it is. `index`: in the output."""
    place: Json = {"item_id": item.id, "output_index": index}
    return {**place, "content_index": 0} if isinstance(item, Spoken) else place


def opening(item: Spoken | Called, index: int) -> list[Told]:
    """Before anything of it is told."""
    told: list[Told] = [("response.output_item.added", {"output_index": index, "item": item.begun()})]
    if isinstance(item, Spoken):
        part = item.part_with("", [])
        told.append(("response.content_part.added", {**place_of(item, index), "part": part}))
    return told


def delta_head(item: Spoken | Called, index: int) -> bytes:
    """Of an item's deltas, all that comes before their numbers: a stream is little else than deltas."""
    kind = item.kind.events if isinstance(item, Called) else item.part.type
    body = orjson.dumps({"type": f"response.{kind}.delta", **place_of(item, index)})
    return b'event: response.%b.delta\ndata: %b,"sequence_number":' % (kind.encode(), body[:-1])


def delta(head: bytes, number: int, said: str, logprobs: list[Json] | None) -> bytes:
    """`logprobs`: None when it has no room for any."""
    told = orjson.dumps(said)
    if logprobs is not None:
        told += b',"logprobs":' + orjson.dumps(logprobs)
    return b'%b%d,"delta":%b}\n\n' % (head, number, told)


def has_logprobs(item: Spoken | Called) -> bool:
    """Its deltas have room for them."""
    return isinstance(item, Spoken) and item.part is TEXT


def closing(item: Spoken | Called, index: int, ended: Json) -> list[Told]:
    """After all of it was told. `ended`: the item as it ended."""
    place = place_of(item, index)
    told: list[Told] = []
    if isinstance(item, Called):
        named = {"name": item.name} if item.kind is FUNCTION else {}
        told.append((f"response.{item.kind.events}.done", {**place, **named, item.kind.said_as: item.said}))
    else:
        part = item.part_with(item.said, item.logprobs)
        fields = {name: value for name, value in part.items() if name not in ("type", "annotations")}
        told.append((f"response.{item.part.type}.done", {**place, **fields}))
        told.append(("response.content_part.done", {**place, "part": part}))
    told.append(("response.output_item.done", {"output_index": index, "item": ended}))
    return told


def closings(item: Spoken | Called) -> int:
    """How many there are of those."""
    return 2 if isinstance(item, Called) else 3


def ending(response: Json) -> Told:
    """Named by how it ended: completed, incomplete, failed, cancelled."""
    return f"response.{response['status']}", {"response": response}
