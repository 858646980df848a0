"""A conversation: what it is made of, what it may weigh, how it is called, and which of its branches is read. Pure.

Its messages are a tree. What is asked or answered again hangs beside what was there before, so nothing that was said is
lost, and two models that answer the same question are two answers below it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson

from forebay.errors import BadInput, NotPossible

MOST_MESSAGE_BYTES = 2 * 1024**2
"""Of one message without its files."""
MOST_MESSAGES = 2_000
MOST_CONVERSATION_BYTES = 128 * 1024**2
"""With its files."""
MOST_TEXT_BYTES = 16 * 1024**2
"""Without them: it is read and shown as a whole."""
MOST_FILE_BYTES = 10 * 1024**2
MOST_SETTINGS_BYTES = 128 * 1024
LONGEST_TITLE = 60
LISTED = 50
UNTITLED = "New conversation"

PICTURES = ("image/png", "image/jpeg", "image/webp", "image/gif")
TEXT = "text/plain"
_SIGNS = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/webp": (b"RIFF",),
    "image/gif": (b"GIF87a", b"GIF89a"),
}
_ID = re.compile(r"[A-Za-z0-9_-]{8,64}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MOST_PARTS = 40
_DEEPEST = 24


class Role(StrEnum):
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class ChatLimits:
    conversations: int
    """Of one user."""
    bytes: int
    """Of all of them, with their files."""
    days: int
    """After so many without a new message a conversation goes. 0: never."""


@dataclass(frozen=True, slots=True)
class Conversation:
    id: str
    user_id: str
    title: str
    settings: Mapping[str, Any]
    """The page's own: models, parameters, which branch is read (`leaf`)."""
    created_at: datetime
    changed_at: datetime
    share_id: str | None = None
    shared_at: datetime | None = None
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    id: str
    parent_id: str | None
    role: Role
    content: Mapping[str, Any]
    """`parts`: texts, pictures and files; of an answer also `reasoning` and `tool_calls`."""
    created_at: datetime
    model: str = ""
    told: Mapping[str, Any] = field(default_factory=dict)
    """Of an answer: tokens, time to first token, tokens per second, why it ended, what went wrong."""
    size_bytes: int = 0

    @property
    def text(self) -> str:
        return "\n\n".join(part["text"] for part in self.content.get("parts", ()) if part.get("type") == "text")

    @property
    def files(self) -> list[Mapping[str, Any]]:
        return [part for part in self.content.get("parts", ()) if part.get("type") in ("image", "file")]


@dataclass(frozen=True, slots=True)
class Attachment:
    digest: str
    """SHA-256 of its bytes, in hexadecimal digits."""
    kind: str
    """One of PICTURES, or TEXT."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Whole:
    """A conversation with all that was said in it."""

    conversation: Conversation
    messages: Sequence[Message]


@dataclass(frozen=True, slots=True)
class Held:
    conversations: int
    size_bytes: int


def demand_room(held: Held, limits: ChatLimits, *, more_conversations: int = 0, more_bytes: int = 0) -> None:
    """Raises NotPossible, and says what to do."""
    if more_conversations and held.conversations + more_conversations > limits.conversations:
        raise NotPossible(
            f"You have {held.conversations} conversations, and {limits.conversations} are the most (chat_per_user): "
            "delete some that you no longer need."
        )
    if more_bytes > 0 and held.size_bytes + more_bytes > limits.bytes:
        raise NotPossible(
            f"Your conversations and their files have {held.size_bytes} bytes, and {limits.bytes} are the most "
            "(chat_bytes_per_user): delete some that you no longer need."
        )


def demand_text_room(messages: int, text_bytes: int, *, more_bytes: int, more_messages: int) -> None:
    """Raises NotPossible."""
    if messages + more_messages > MOST_MESSAGES:
        raise NotPossible(f"A conversation has at most {MOST_MESSAGES} messages: begin another one.")
    if more_bytes > 0 and text_bytes + more_bytes > MOST_TEXT_BYTES:
        raise NotPossible(
            f"What is said in a conversation has at most {MOST_TEXT_BYTES // 1024**2} MiB: begin another one."
        )


def demand_conversation_room(size_bytes: int, *, more_bytes: int) -> None:
    """Raises NotPossible."""
    if more_bytes > 0 and size_bytes + more_bytes > MOST_CONVERSATION_BYTES:
        raise NotPossible(
            f"A conversation and its files have at most {MOST_CONVERSATION_BYTES // 1024**2} MiB: begin another one."
        )


def demand_id(text: object, what: str) -> str:
    """Raises BadInput."""
    if not isinstance(text, str) or not _ID.fullmatch(text):
        raise BadInput(f"{what} is 8 to 64 letters, digits, - and _.")
    return text


def demand_digest(text: object) -> str:
    """Raises BadInput."""
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise BadInput("A file is named by its SHA-256: 64 hexadecimal digits.")
    return text


def demand_title(text: object) -> str:
    """In one line. Raises BadInput."""
    if not isinstance(text, str):
        raise BadInput("A title is a text.")
    title = " ".join(text.split())
    if not title or len(title) > 200 or not title.isprintable():
        raise BadInput("A title has 1 to 200 characters, all of them printable.")
    return title


def demand_settings(told: object) -> Mapping[str, Any]:
    """Raises BadInput."""
    settings = _demand_object(told, "The settings")
    if len(orjson.dumps(settings)) > MOST_SETTINGS_BYTES:
        raise BadInput(f"The settings of a conversation have at most {MOST_SETTINGS_BYTES // 1024} KiB.")
    return settings


def demand_message(id: object, told: object, now: datetime) -> Message:
    """What a page says of a message. Raises BadInput."""
    said = _demand_object(told, "A message")
    for name in said:
        if name not in ("parent_id", "role", "content", "model", "told"):
            raise BadInput(f"`{name[:40]}` is no field of a message.")
    parent = said.get("parent_id")
    try:
        role = Role(said.get("role", ""))
    except ValueError:
        raise BadInput("The role of a message is user or assistant.") from None
    model = said.get("model", "")
    if not isinstance(model, str) or len(model) > 256 or not model.isprintable():
        raise BadInput("`model` is the name of a model.")
    content = _demand_content(said.get("content"))
    facts = _demand_object(said.get("told", {}), "`told`")
    size_bytes = len(orjson.dumps(content)) + len(orjson.dumps(facts))
    if size_bytes > MOST_MESSAGE_BYTES:
        raise BadInput(
            f"A message has at most {MOST_MESSAGE_BYTES // 1024**2} MiB; longer texts can be put in as files."
        )
    return Message(
        demand_id(id, "A message's id"),
        None if parent is None else demand_id(parent, "A message's parent_id"),
        role,
        content,
        now,
        model,
        facts,
        size_bytes,
    )


def demand_file(kind: str, body: bytes) -> str:
    """The kind that a file is kept as. Raises BadInput for what is not what it is said to be, or is of no use here."""
    if not body:
        raise BadInput("This file is empty.")
    if len(body) > MOST_FILE_BYTES:
        raise BadInput(f"A file has at most {MOST_FILE_BYTES // 1024**2} MiB.")
    if kind in PICTURES:
        if not body.startswith(_SIGNS[kind]):
            raise BadInput(f"This file is no {kind.removeprefix('image/').upper()}, though it is said to be one.")
        return kind
    try:
        is_text = "\0" not in body.decode()
    except UnicodeDecodeError:
        is_text = False
    if not is_text:
        raise BadInput("Files here are texts (UTF-8) and pictures (PNG, JPEG, WebP, GIF).")
    return TEXT


def title_of(text: str) -> str:
    """Of the first words that somebody said: LONGEST_TITLE characters, cut between words where that is possible."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    if len(line) <= LONGEST_TITLE:
        return line or UNTITLED
    cut = line[: LONGEST_TITLE - 1]
    whole = cut.rpartition(" ")[0]
    return f"{whole if len(whole) > LONGEST_TITLE // 2 else cut}…"


def read_branch(messages: Sequence[Message], leaf: object = None) -> list[Message]:
    """From the first message over the one named `leaf` to the end that was written last below it; without one to the end
    that was written last of all."""
    by_id = {message.id: message for message in messages}
    newest_below = {message.parent_id: message for message in messages}
    at = by_id.get(leaf) if isinstance(leaf, str) else None
    if at is None:
        at = next((message for message in reversed(messages) if message.id not in newest_below), None)
    branch: list[Message] = []
    seen: set[str] = set()
    above = at
    while above is not None and above.id not in seen:
        seen.add(above.id)
        branch.insert(0, above)
        above = by_id.get(above.parent_id or "")
    while at is not None and (at := newest_below.get(at.id)) is not None and at.id not in seen:
        seen.add(at.id)
        branch.append(at)
    return branch


def _demand_content(told: object) -> dict[str, Any]:
    content = _demand_object(told, "`content`")
    parts = content.get("parts")
    if not isinstance(parts, list) or len(parts) > _MOST_PARTS:
        raise BadInput(f"`content.parts` is a list of at most {_MOST_PARTS} parts.")
    for part in parts:
        match part:
            case {"type": "text", "text": str()}:
                pass
            case {"type": "image" | "file", "digest": digest, "name": str(name)}:
                demand_digest(digest)
                if len(name) > 300:
                    raise BadInput("A file's name has at most 300 characters.")
            case _:
                raise BadInput("A part is a text, or an image or file with its digest and name.")
    if not isinstance(content.get("reasoning", ""), str):
        raise BadInput("`content.reasoning` is a text.")
    if not isinstance(content.get("tool_calls", []), list):
        raise BadInput("`content.tool_calls` is a list.")
    return content


def _demand_object(told: object, what: str) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise BadInput(f"{what} is an object.")
    _demand_plain(told, what, 0)
    return told


def _demand_plain(value: object, what: str, depth: int) -> None:
    """No database keeps a NUL in a text."""
    if depth > _DEEPEST:
        raise BadInput(f"{what} goes more than {_DEEPEST} levels deep.")
    if isinstance(value, str):
        if "\0" in value:
            raise BadInput(f"{what} has a NUL in a text.")
    elif isinstance(value, dict):
        for name, inner in value.items():
            _demand_plain(name, what, depth + 1)
            _demand_plain(inner, what, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _demand_plain(inner, what, depth + 1)
