"""A conversation as a file that people take with them: JSON with all of it, or Markdown of the branch that is read. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from forebay_admin.chat.conversation import Conversation, Message, Role, Whole, read_branch
from forebay_admin.chat.found_sources import kept_sources

_FENCE = re.compile(r"^(`{3,})", re.MULTILINE)


def told_conversation(conversation: Conversation) -> dict[str, Any]:
    """As it stands in a list."""
    return {
        "id": conversation.id,
        "title": conversation.title,
        "created_at": conversation.created_at.isoformat(),
        "changed_at": conversation.changed_at.isoformat(),
        "share_id": conversation.share_id,
        "bytes": conversation.size_bytes,
    }


def told_message(message: Message) -> dict[str, Any]:
    return {
        "id": message.id,
        "parent_id": message.parent_id,
        "role": message.role.value,
        "content": message.content,
        "model": message.model,
        "told": message.told,
        "created_at": message.created_at.isoformat(),
    }


def told_whole(whole: Whole) -> dict[str, Any]:
    return {
        **told_conversation(whole.conversation),
        "settings": whole.conversation.settings,
        "messages": [told_message(message) for message in whole.messages],
    }


def as_markdown(whole: Whole) -> str:
    settings = whole.conversation.settings
    lines = [f"# {whole.conversation.title}", ""]
    if isinstance(system := settings.get("system"), str) and system.strip():
        lines += ["> System: " + system.strip().replace("\n", "\n> "), ""]
    for message in read_branch(whole.messages, settings.get("leaf")):
        lines += [f"## {heading(message)}", ""]
        lines += [f"- {part.get('name', 'file')}" for part in message.files]
        if message.files:
            lines.append("")
        if reasoning := message.content.get("reasoning"):
            lines += ["<details><summary>Reasoning</summary>", "", str(reasoning).strip(), "", "</details>", ""]
        lines += [message.text.strip(), ""]
        for call in message.content.get("tool_calls", ()):
            lines += [fenced(call_text(call)), ""]
        if sources := kept_sources(message.told):
            lines += [f"{number}. {one.title}: <{one.url}>" for number, one in enumerate(sources, 1)]
            lines.append("")
    return "\n".join(lines)


def heading(message: Message) -> str:
    if message.role is Role.USER:
        return "You"
    return message.model or "Assistant"


def call_text(call: object) -> str:
    """A tool that a model wants called, as it would be written in a program."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return str(call)
    return f"{function.get('name', '')}({function.get('arguments', '')})"


def fenced(text: str) -> str:
    """As a block of code, whatever fences stand in it."""
    longest = max((len(found) for found in _FENCE.findall(text)), default=2)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def file_name(title: str, ending: str) -> str:
    """Of ASCII letters, for a header."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", title).strip("-")[:60] or "conversation"
    return f"{plain}.{ending}"
