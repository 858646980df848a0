"""What clients let Forebay keep for them: what such a thing is, and how much of it a user may have. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NewType

from forebay.errors import BadInput, NotPossible, Refusal

MOST_BODY_BYTES = 8 * 1024**2

_ID = re.compile(r"[!-~]{1,200}")


class Kind(StrEnum):
    RESPONSE = "response"
    CONVERSATION = "conversation"
    ITEM = "item"
    FILE = "file"
    BACKGROUND = "background"
    """What gateways tell one another of responses that are under way."""


_MANY = {
    Kind.RESPONSE: "responses",
    Kind.CONVERSATION: "conversations",
    Kind.ITEM: "items of conversations",
    Kind.FILE: "files",
    Kind.BACKGROUND: "signs of responses in the background",
}

BlobName = NewType("BlobName", str)
"""Under which the blob store has the bytes. Random: nothing that a client says is in it."""


@dataclass(frozen=True, slots=True)
class Blob:
    name: BlobName
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Thing:
    kind: Kind
    id: str
    user_id: str
    parent_id: str | None
    """What it follows (a response), or lies in (an item of a conversation)."""
    created_at: datetime
    expires_at: datetime | None
    body: bytes
    """As it came; nobody looks inside."""
    blob: Blob | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.body) + (self.blob.size_bytes if self.blob is not None else 0)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a thing is looked for."""

    user_id: str
    kind: Kind
    id: str


@dataclass(frozen=True, slots=True)
class Page:
    user_id: str
    kind: Kind
    parent_id: str | None
    """None: of any."""
    after: str | None
    """The id after which it begins."""
    limit: int
    is_descending: bool


@dataclass(frozen=True, slots=True)
class Held:
    """What a user has of one kind."""

    things: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ContentLimits:
    things_per_user: int
    bytes_per_user: int
    blob_bytes: int


class BlobTooLarge(BadInput):
    """A file has more bytes than one may have."""

    reason = Refusal.BODY_TOO_LARGE


def kind_named(word: str) -> Kind:
    """Raises BadInput."""
    try:
        return Kind(word)
    except ValueError:
        raise BadInput(f"There is no kind {word!r}; there are {', '.join(Kind)}.") from None


def demand_id(field: str, text: str) -> str:
    """Raises BadInput unless it is 1 to 200 visible ASCII characters."""
    if not _ID.fullmatch(text):
        raise BadInput(f"{field} must be 1 to 200 visible ASCII characters without spaces.")
    return text


def demand_body(body: bytes) -> bytes:
    """Raises BadInput."""
    if len(body) > MOST_BODY_BYTES:
        raise BadInput(f"This has {len(body)} bytes, and {MOST_BODY_BYTES} are the most that one thing may have.")
    return body


def demand_blob(size_bytes: int, limits: ContentLimits) -> None:
    """Raises BlobTooLarge."""
    if size_bytes > limits.blob_bytes:
        raise BlobTooLarge(
            f"A file may have {limits.blob_bytes} bytes (content_max_blob_bytes), and this one has more."
        )


def responses_in_the_way(kind: Kind, held: Mapping[str, Held], limits: ContentLimits) -> int:
    """How many of a user's oldest responses give way to one more. Clients have responses kept by default and never delete
    any, so the limit would end it for them one day; a hundredth at once, so that not every one pays for that."""
    if kind not in (Kind.RESPONSE, Kind.BACKGROUND) or sum(of.things for of in held.values()) < limits.things_per_user:
        return 0
    held_responses = held[Kind.RESPONSE].things if Kind.RESPONSE in held else 0
    return min(held_responses, max(1, limits.things_per_user // 100))


def demand_room(held: Mapping[str, Held], *, more_things: int, more_bytes: int, limits: ContentLimits) -> None:
    """Raises NotPossible, and says what to delete, when a user who has this may not have that much more."""
    things = sum(of.things for of in held.values())
    size_bytes = sum(of.size_bytes for of in held.values())
    if more_things > 0 and things + more_things > limits.things_per_user:
        kind = max(held, key=lambda one: held[one].things, default=None)
        hint = f" Most are {_many(kind)} ({held[kind].things})." if kind is not None else ""
        raise NotPossible(
            f"{things} things are kept for you and {limits.things_per_user} are the most (content_per_user): "
            f"delete some that you no longer need.{hint}"
        )
    if more_bytes > 0 and size_bytes + more_bytes > limits.bytes_per_user:
        kind = max(held, key=lambda one: held[one].size_bytes, default=None)
        hint = f" Most are in {_many(kind)} ({held[kind].size_bytes} bytes)." if kind is not None else ""
        raise NotPossible(
            f"{size_bytes} bytes are kept for you, this needs {more_bytes} more, and {limits.bytes_per_user} are the "
            f"most (content_bytes_per_user): delete something that you no longer need.{hint}"
        )


def _many(kind: str) -> str:
    return next((word for known, word in _MANY.items() if known == kind), kind)
