"""The content blocks of Anthropic's messages, and the ones that become parts of OpenAI's: text, image, document. Pure."""

from __future__ import annotations

from itertools import chain

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.fields import wrong_type
from forebay_gateway.canonical.file_parts import PlacedPart
from forebay_gateway.dialects.anthropic.checked import at, object_at, text_at, unknown
from forebay_gateway.dialects.anthropic.untranslated import Untranslated

Placed = tuple[str, Json]
"""A block and its place in the body, such as `messages[2].content[0]`."""

_NAMES = {"file_data": "data", "file_url": "url"}
"""Of a document's sources, as Anthropic calls them."""


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


def texts_at(owner: Json, name: str, untranslated: Untranslated, where: str = "") -> list[str]:
    """Of content that has nothing but text. Raises BadField."""
    texts = []
    for place, block in blocks_at(owner, name, where):
        with untranslated.noted():
            texts.append(_text_only(block, place))
    return texts


def parts_of(block: Json, where: str) -> list[Json]:
    """What a person may show a model. Raises BadField, of it OnlyAnthropic."""
    match block["type"]:
        case "text":
            return [text_part(text_at(block, "text", where))]
        case "image":
            return [image_part(_image_url(object_at(block, "source", where), at(where, "source")))]
        case "document":
            return _document_parts(block, where)
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
            raise unknown(at(where, "type"), kind, "base64 or url")


def _document_parts(block: Json, where: str) -> list[Json]:
    source, place = object_at(block, "source", where), at(where, "source")
    match text_at(source, "type", place):
        case "text":
            return [text_part("\n\n".join([*_headings(block), text_at(source, "data", place)]))]
        case "content":
            shown = [parts_of(inner, inner_at) for inner_at, inner in blocks_at(source, "content", place)]
            return [*map(text_part, _headings(block)), *chain.from_iterable(shown)]
        case "base64":
            url = f"data:{text_at(source, 'media_type', place)};base64,{text_at(source, 'data', place)}"
            return _file_parts(block, {"file_data": url}, place)
        case "url":
            return _file_parts(block, {"file_url": text_at(source, "url", place)}, place)
        case kind:
            raise unknown(at(place, "type"), kind, "text, base64, url or content")


def _file_parts(block: Json, source: Json, place: str) -> list[Json]:
    """What it is, is found out once its bytes are there."""
    title = block.get("title")
    told = {**({"filename": title} if isinstance(title, str) and title else {}), **source}
    file = PlacedPart({"type": "file", "file": told}, f"{place}.", _NAMES)
    return [*map(text_part, _headings(block, "context")), file]


def _headings(block: Json, *names: str) -> list[str]:
    given = [block.get(name) for name in names or ("title", "context")]
    return [text for text in given if isinstance(text, str) and text]
