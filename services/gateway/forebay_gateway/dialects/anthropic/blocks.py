"""The content blocks of Anthropic's messages, and the ones that become parts of OpenAI's: text, image, document. Pure."""

from __future__ import annotations

from typing import Any

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.fields import wrong_type
from forebay_gateway.dialects.anthropic.checked import at, object_at, text_at, unknown
from forebay_gateway.refused import BadField

Placed = tuple[str, Json]
"""A block and its place in the body, such as `messages[2].content[0]`."""


def blocks_at(owner: Json, name: str, where: str = "") -> list[Placed]:
    """Content is a string or a list of blocks, each with a type. Raises BadField."""
    content, place = owner.get(name), at(where, name)
    if isinstance(content, str):
        return [(place, {"type": "text", "text": content})]
    if not isinstance(content, list):
        raise wrong_type(place, "a string or a list of content blocks", content)
    blocks = []
    for number, block in enumerate(content):
        if not isinstance(block, dict):
            raise wrong_type(f"{place}[{number}]", "a content block: an object with a `type`", block)
        text_at(block, "type", f"{place}[{number}]")
        blocks.append((f"{place}[{number}]", block))
    return blocks


def texts_at(owner: Json, name: str, where: str = "") -> list[str]:
    """Of content that has nothing but text. Raises BadField."""
    return [_text_only(block, place) for place, block in blocks_at(owner, name, where)]


def part_of(block: Json, where: str) -> Json:
    """What a person may show a model. Raises BadField."""
    match block["type"]:
        case "text":
            return text_part(text_at(block, "text", where))
        case "image":
            return image_part(_image_url(object_at(block, "source", where), at(where, "source")))
        case "document":
            return text_part(_document_text(block, where))
        case kind:
            raise unknown(at(where, "type"), kind, "text, image or document, and tool_result in a user's message")


def text_part(text: str) -> Json:
    return {"type": "text", "text": text}


def image_part(url: str) -> Json:
    return {"type": "image_url", "image_url": {"url": url}}


def _text_only(block: Json, where: str) -> str:
    if block["type"] != "text":
        raise unknown(at(where, "type"), block["type"], "only text")
    return text_at(block, "text", where)


def _image_url(source: Json, where: str) -> str:
    match source.get("type"):
        case "base64":
            return f"data:{text_at(source, 'media_type', where)};base64,{text_at(source, 'data', where)}"
        case "url":
            return text_at(source, "url", where)
        case _:
            kind = text_at(source, "type", where)
            raise unknown(at(where, "type"), kind, "base64 or url, since no files are kept")


def _document_text(block: Json, where: str) -> str:
    source, place = object_at(block, "source", where), at(where, "source")
    if text_at(source, "type", place) != "text":
        raise BadField(
            f"`{place}.type` is `{source['type'][:64]}`: of documents, models here read only text. Send the document's "
            "words as a source of type `text`, or its pages as images.",
            param=f"{place}.type",
        )
    headings: list[Any] = [block.get("title"), block.get("context")]
    return "\n\n".join([*(text for text in headings if isinstance(text, str) and text), text_at(source, "data", place)])
