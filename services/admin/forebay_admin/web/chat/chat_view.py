"""What the chat's pages show that is written by the server: the list of conversations, and a conversation as text. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from forebay_admin.chat.conversation import Conversation, Message, Role, Whole, read_branch
from forebay_admin.chat.export import call_text, heading
from forebay_admin.chat.found_sources import Source, kept_sources


@dataclass(frozen=True, slots=True)
class Entry:
    id: str
    title: str
    changed_at: float
    is_shared: bool
    is_here: bool


@dataclass(frozen=True, slots=True)
class File:
    name: str
    digest: str
    is_picture: bool


@dataclass(frozen=True, slots=True)
class Link:
    title: str
    url: str
    host: str


@dataclass(frozen=True, slots=True)
class Said:
    who: str
    is_user: bool
    text: str
    reasoning: str
    calls: tuple[str, ...]
    files: tuple[File, ...]
    error: str
    facts: str
    sources: tuple[Link, ...]
    """Of the web, that it was answered with."""


def entries(conversations: Sequence[Conversation], here: str) -> list[Entry]:
    return [
        Entry(one.id, one.title, _seconds(one.changed_at), one.share_id is not None, one.id == here)
        for one in conversations
    ]


def said(whole: Whole) -> list[Said]:
    """Of the branch that is read."""
    return [_said(message) for message in read_branch(whole.messages, whole.conversation.settings.get("leaf"))]


def facts_of(told: object) -> str:
    """What stands under an answer: how fast it was, and how long."""
    if not isinstance(told, dict):
        return ""
    facts = []
    if isinstance(ttft_ms := told.get("ttft_ms"), int | float):
        facts.append(f"first token after {ttft_ms / 1000:.2f} s")
    if isinstance(pace := told.get("tokens_per_s"), int | float):
        facts.append(f"{pace:.1f} tokens/s")
    if isinstance(tokens := told.get("completion_tokens"), int):
        facts.append(f"{tokens:,} tokens")
    if told.get("stopped") is True:
        facts.append("stopped")
    return " · ".join(facts)


def _said(message: Message) -> Said:
    content, told = message.content, message.told
    return Said(
        heading(message),
        message.role is Role.USER,
        message.text,
        str(content.get("reasoning") or ""),
        tuple(call_text(call) for call in content.get("tool_calls", ())),
        tuple(_file(part) for part in message.files),
        str(told.get("error") or ""),
        facts_of(told),
        tuple(_link(source) for source in kept_sources(told)),
    )


def _link(source: Source) -> Link:
    return Link(source.title, source.url, urlsplit(source.url).hostname or "")


def _file(part: Any) -> File:
    return File(str(part["name"]), str(part["digest"]), part["type"] == "image")


def _seconds(moment: datetime) -> float:
    return moment.timestamp()
