"""Files in the messages of a chat: where they are named or sent along, and what a model is shown of one. Pure.

What a file is, is told by its bytes: names and types are what somebody says. A text is shown as text, since every model
reads that; a picture as a picture; a PDF as it is, to engines that read those."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from forebay_gateway.canonical.data_url import as_data_url
from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.fields import wrong_type
from forebay_gateway.canonical.media_types import PDF, type_by_content
from forebay_gateway.refused import BadField

MOST_FILES = 64
"""In one request."""

_SOURCES = ("file_id", "file_data", "file_url")


class PlacedPart(dict[str, Any]):
    """A part of a message that knows its place in a request that was no chat, with a dot at its end."""

    def __init__(self, fields: Json, at: str, names: Mapping[str, str] | None = None) -> None:
        """`names`: what the request calls a file's sources, where it is not as chats do."""
        super().__init__(fields)
        self.at = at
        self.names = names or {}


@dataclass(frozen=True, slots=True)
class FilePart:
    part: Json
    """As it stands in the chat, to be changed there."""
    told: Json
    """What is said of the file."""
    at: str
    """Its place in the client's request, with a dot at its end."""
    is_picture: bool = False
    """Nothing else will do."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Of its sources in the client's request, where they are other ones."""

    def param(self, source: str) -> str:
        """Where the client has named it."""
        return f"{self.at}{self.names.get(source, source)}"

    def source(self) -> tuple[str, str]:
        """One of `file_id`, `file_data` and `file_url`, and what it says. Raises BadField."""
        given = [name for name in _SOURCES if self.told.get(name) is not None]
        if not given:
            raise BadField(
                f"`{self.at}file_id` is missing: name a stored file, or send its bytes as `file_data`.",
                param=f"{self.at}file_id",
                code="missing_required_parameter",
            )
        if len(given) > 1:
            raise BadField(
                f"`{self.at}{given[0]}` and `{self.at}{given[1]}` exclude each other: say once which file is meant.",
                param=f"{self.at}{given[1]}",
                code="mutually_exclusive_parameters",
            )
        (name,) = given
        if not isinstance(self.told[name], str):
            raise wrong_type(f"{self.at}{name}", "a string", self.told[name])
        return name, self.told[name]

    def show(self, part: Json) -> None:
        """In its place."""
        self.part.clear()
        self.part.update(part)


@dataclass(frozen=True, slots=True)
class File:
    name: str
    content: bytes
    media_type: str
    """As it was told, or as its name tells."""
    url: str | None = None
    """The same as a data: URL, if it came as one."""


@dataclass(frozen=True, slots=True)
class Shown:
    part: Json
    text_bytes: int = 0
    is_document: bool = False
    """Not every engine reads it."""


def has_parts(fields: Mapping[str, Any]) -> bool:
    """Whether a chat, whose `messages` are a list of objects, says anything in parts, among which there may be files and
    pictures."""
    return list in {type(message.get("content")) for message in fields["messages"]}


def has_files(fields: Mapping[str, Any]) -> bool:
    return next(file_parts(fields), None) is not None


def file_parts(fields: Mapping[str, Any]) -> Iterator[FilePart]:
    messages = fields.get("messages")
    for number, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            for place, part in enumerate(content):
                if isinstance(part, dict) and part.get("type") in ("file", "image_url"):
                    yield from _file_in(part, f"messages[{number}].content[{place}].")


def _file_in(part: Json, at: str) -> Iterator[FilePart]:
    kind = part["type"]
    told = part.get(kind)
    where = part.at if isinstance(part, PlacedPart) else f"{at}{kind}."
    if kind == "file":
        names = part.names if isinstance(part, PlacedPart) else {}
        yield FilePart(part, told if isinstance(told, dict) else {}, where, names=names)
    elif isinstance(told, dict) and told.get("file_id") is not None:
        yield FilePart(part, told, where, is_picture=True)


def shown(file: File, named: FilePart, param: str) -> Shown:
    """`param`: the field that names it. Raises BadField."""
    kind = type_by_content(file.content)
    text = _text_of(file.content) if kind is None else None
    if text is not None and not named.is_picture:
        told = f'<file name="{escape(file.name)}">\n{text}\n</file>'
        return Shown({"type": "text", "text": told}, text_bytes=len(told.encode()))
    kind = kind or ("" if text is not None else file.media_type)
    if kind.startswith("image/"):
        detail = {"detail": named.told["detail"]} if named.is_picture and "detail" in named.told else {}
        return Shown({"type": "image_url", "image_url": {"url": file.url or as_data_url(kind, file.content), **detail}})
    if named.is_picture:
        raise BadField(f"`{param}` is a file that is no picture.", param=param, code="invalid_value")
    if kind == PDF:
        told_file = {"filename": file.name, "file_data": file.url or as_data_url(PDF, file.content)}
        return Shown({"type": "file", "file": told_file}, is_document=True)
    raise BadField(
        f"`{param}` is a file that no model here can read: it can be a text in UTF-8, a picture or, for some models, a PDF.",
        param=param,
        code="invalid_value",
    )


def unread_document(param: str) -> BadField:
    return BadField(
        f"`{param}` is a PDF, and no engine that has this model reads those: send its text, or its pages as pictures.",
        param=param,
        code="invalid_value",
    )


def fold_texts(fields: Mapping[str, Any]) -> None:
    """A message that came to be nothing but texts is one text: more engines and templates take that than a list."""
    for message in fields["messages"]:
        content = message.get("content")
        if isinstance(content, list) and all(_is_text(part) for part in content):
            message["content"] = "\n".join(part["text"] for part in content)


def _is_text(part: Any) -> bool:
    """And nothing besides, such as a mark for a cache."""
    return isinstance(part, dict) and part.keys() == {"type", "text"} and isinstance(part["text"], str)


def _text_of(content: bytes) -> str | None:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\x00" in text else text
