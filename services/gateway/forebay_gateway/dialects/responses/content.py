"""What an item says: its text, images, sounds and files, as the parts of a chat message. Files that it names are looked up
later, for requests that are not refused anyway."""

from __future__ import annotations

from typing import Any

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.fields import wrong_type
from forebay_gateway.canonical.file_parts import FilePart, PlacedPart
from forebay_gateway.canonical.typed import bad_value, demand_string, missing, object_in, string_in

_OF_A_FILE = ("file_id", "file_data", "file_url", "filename")
_DETAILS = ("auto", "low", "high")
"""Those that chat knows."""


def parts_in(item: Json, name: str, at: str) -> list[Json]:
    """A text, or a list of parts. Raises BadField."""
    value = item.get(name)
    if value is None:
        raise missing(at + name, "send a text, or a list of parts such as {type: input_text, text}")
    if isinstance(value, str):
        return [_text(value)]
    if not isinstance(value, list):
        raise wrong_type(at + name, "a string or a list of parts", value)
    return [_part(part, f"{at}{name}[{place}]") for place, part in enumerate(value)]


def is_text(part: Json) -> bool:
    return bool(part["type"] == "text")


def texts_of(parts: list[Json]) -> list[str]:
    return [part["text"] for part in parts if is_text(part)]


def images_of(parts: list[Json]) -> list[Json]:
    return [part for part in parts if not is_text(part)]


def _part(part: Any, at: str) -> Json:
    if not isinstance(part, dict):
        raise wrong_type(at, "an object with a `type`", part)
    match part.get("type"):
        case "input_text" | "output_text" | "text":
            return _text(demand_string(part, "text", f"{at}.", "it is what the part says"))
        case "refusal":
            return _text(demand_string(part, "refusal", f"{at}.", "it is what the part says"))
        case "input_image":
            return _image(part, f"{at}.")
        case "input_file":
            return _file(part, f"{at}.")
        case "input_audio":
            return _audio(part, f"{at}.")
        case _:
            kind = demand_string(part, "type", f"{at}.", "such as input_text, input_image or input_file")
            raise bad_value(
                f"{at}.type",
                f'`{at}.type` is "{kind[:40]}"; it can be input_text, output_text, refusal, input_image, input_audio or '
                "input_file.",
            )


def _text(text: str) -> Json:
    return {"type": "text", "text": text}


def _image(part: Json, at: str) -> Json:
    file_id, detail = string_in(part, "file_id", at), string_in(part, "detail", at)
    more = {"detail": detail} if detail in _DETAILS else {}
    if file_id is not None and part.get("image_url") is None:
        return PlacedPart({"type": "image_url", "image_url": {"file_id": file_id, **more}}, at)
    if file_id is not None:
        raise bad_value(f"{at}file_id", f"`{at}file_id` and `{at}image_url` exclude each other: send one.")
    url = demand_string(part, "image_url", at, "send the image's URL, or the image itself as a data URI")
    return {"type": "image_url", "image_url": {"url": url, **more}}


def _audio(part: Json, at: str) -> Json:
    """Chat's has the same form."""
    told = object_in(part, "input_audio", at)
    if told is None:
        raise missing(f"{at}input_audio", "send the sound as {data, format}, in base64")
    within = f"{at}input_audio."
    data = demand_string(told, "data", within, "send the sound itself, in base64")
    return {
        "type": "input_audio",
        "input_audio": {"data": data, "format": demand_string(told, "format", within, "such as wav or mp3")},
    }


def _file(part: Json, at: str) -> Json:
    told = {name: value for name in _OF_A_FILE if (value := string_in(part, name, at)) is not None}
    placed = PlacedPart({"type": "file", "file": told}, at)
    FilePart(placed, told, at).source()  # raises when it is not named, or twice
    return placed
