"""Folds the events of one of Anthropic's streamed answers into the message that they are the pieces of. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from forebay_gateway.canonical.dialect import Json

_JOINED = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


def fold_message(events: Iterable[Json]) -> Json:
    message: Json = {}
    blocks: dict[Any, Json] = {}
    inputs: dict[Any, list[str]] = {}
    """Of tools, by their block: pieces of JSON."""
    for event in events:
        match event.get("type"):
            case "message_start":
                message = dict(event.get("message") or {})
            case "content_block_start":
                blocks[event.get("index")] = dict(event.get("content_block") or {})
            case "content_block_delta":
                index = event.get("index")
                _add(blocks.setdefault(index, {}), event.get("delta") or {}, inputs.setdefault(index, []))
            case "message_delta":
                message |= event.get("delta") or {}
                message["usage"] = {**(message.get("usage") or {}), **(event.get("usage") or {})}
    for index, pieces in inputs.items():
        if any(pieces):
            blocks[index]["input"] = _input("".join(pieces))
    return {**message, "content": [blocks[index] for index in blocks]}


def _add(block: Json, delta: Json, pieces: list[str]) -> None:
    kind = delta.get("type")
    if kind in _JOINED:
        name = _JOINED[kind]
        block[name] = (block.get(name) or "") + (delta.get(name) or "")
    elif kind == "input_json_delta":
        pieces.append(delta.get("partial_json") or "")
    elif kind == "citations_delta":
        block["citations"] = [*(block.get("citations") or ()), delta.get("citation")]


def _input(text: str) -> Any:
    """Of an answer that was cut short it is no whole JSON."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
