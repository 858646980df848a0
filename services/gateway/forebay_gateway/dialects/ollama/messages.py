"""A conversation, from Ollama's messages to OpenAI's. Pure.

Two things differ in kind. Images are bare base64 beside the text and become parts of the content. Tool calls need no ids and
their results need name no call; the ids that OpenAI demands are made here so that each result names the call it answers."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.fields import wrong_type
from forebay_gateway.dialects.ollama.fields import list_of, text_of
from forebay_gateway.dialects.ollama.tool_calls import made_id
from forebay_gateway.refused import BadField

_SNIFFED_LETTERS = 32
"""Of base64: 24 bytes, more than any of these marks needs."""


def translate_messages(told: list[Any]) -> list[Json]:
    """Raises BadField."""
    links = _Links()
    return [_message(message, place, links) for place, message in enumerate(told)]


def content_of(text: str, images: list[Any]) -> str | list[Json]:
    """Images come first, as Ollama itself puts them into the prompt. Raises BadField."""
    if not images:
        return text
    parts: list[Json] = [{"type": "image_url", "image_url": {"url": _image_url(image)}} for image in images]
    return [*parts, {"type": "text", "text": text}] if text else parts


class _Links:
    """Which calls have no result yet."""

    def __init__(self) -> None:
        self._open: list[tuple[str, str]] = []
        """(id, name), in the order of the calls."""

    def call(self, calls: list[Json]) -> None:
        """Those of one message; what is still open of earlier ones will have no result any more."""
        self._open = [(call["id"], call["function"]["name"]) for call in calls]

    def answer(self, given_id: str, name: str, place: int) -> str:
        """The id of the call that is answered: the one given, or that of the first open call with this name, or of the first
        open call. A result of no call has an id of its own."""
        first = next((call for call in self._open if call[0] == given_id), None) if given_id else None
        if not given_id:
            first = next((call for call in self._open if call[1] == name), next(iter(self._open), None))
        if first is not None:
            self._open.remove(first)
            return first[0]
        return given_id or made_id("result", place, name)


def _message(told: Any, place: int, links: _Links) -> Json:
    if not isinstance(told, dict):
        raise wrong_type(f"messages[{place}]", "an object with `role` and `content`", told)
    role = text_of(told, "role").lower() or "user"
    message: Json = {"role": role, "content": content_of(text_of(told, "content"), list_of(told, "images"))}
    thinking = text_of(told, "thinking")
    if thinking:
        message["reasoning_content"] = thinking
    calls = [_call(call, place, index) for index, call in enumerate(list_of(told, "tool_calls"))]
    if calls:
        message["tool_calls"] = calls
        links.call(calls)
    if role == "tool":
        name = text_of(told, "tool_name") or text_of(told, "name")
        message["tool_call_id"] = links.answer(text_of(told, "tool_call_id"), name, place)
    return message


def _call(told: Any, place: int, index: int) -> Json:
    """`place`: of its message."""
    function = told.get("function") if isinstance(told, dict) else None
    if not isinstance(function, dict):
        raise wrong_type(f"messages[{place}].tool_calls[{index}].function", "an object", function)
    name = text_of(function, "name")
    arguments = function.get("arguments")
    if not isinstance(arguments, str):  # as OpenAI has it, which some clients send here too
        arguments = _as_text({} if arguments is None else arguments)
    call_id = text_of(told, "id") or made_id(place, index, name)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _as_text(arguments: Any) -> str:
    try:
        return orjson.dumps(arguments).decode()
    except orjson.JSONEncodeError as error:
        raise BadField("The arguments of a tool call are nested too deeply.", param="messages") from error


def _image_url(image: Any) -> str:
    if not isinstance(image, str):
        raise wrong_type("images", "a list of images in base64", image)
    return image if image.startswith("data:") else f"data:{_media_type(image)};base64,{image}"


def _media_type(image: str) -> str:
    """By its first bytes. What is none of these is the engine's to judge."""
    try:
        begin = base64.b64decode(image[:_SNIFFED_LETTERS].encode(), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        begin = b""
    if begin.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if begin.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if begin.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if begin.startswith(b"RIFF") and begin[8:12] == b"WEBP":
        return "image/webp"
    return "application/octet-stream"
