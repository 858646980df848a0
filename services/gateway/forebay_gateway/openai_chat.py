"""OpenAI's chat completion request: parsed once, checked where the gateway itself relies on it, and otherwise left alone.

Fields that are unknown here travel on untouched; the engine judges them. Every complaint names its parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from forebay_gateway.refused import BadField

LONGEST_MODEL_NAME = 256
MOST_CHOICES = 128


@dataclass(slots=True)
class ChatRequest:
    model: str
    stream: bool
    n: int
    max_output_tokens: int
    """Tokens of one choice; 0 when the client set no limit."""
    include_usage: bool
    """The client wants the usage chunk at the end of its stream."""
    fields: dict[str, Any]
    """The whole body, until it is forgotten."""
    raw: bytes
    """The same as it came."""

    def forget_body(self) -> None:
        """It is not sent again, since an engine has begun to answer. It may be megabytes, and the answer may take long."""
        self.fields, self.raw = {}, b""

    def for_engine(self, *, streamed: bool, ask_usage: bool = True) -> bytes:
        """The body that the engine gets. A plain request to an engine that is asked plainly passes byte by byte."""
        if not streamed:
            return self.raw
        body = {**self.fields, "stream": True}
        if ask_usage:
            # Of a client that streams nothing they mean nothing, and the engine must not be asked to judge them.
            options = (self.fields.get("stream_options") or {}) if self.stream else {}
            body["stream_options"] = {**options, "include_usage": True}
        elif not self.stream:
            body.pop("stream_options", None)
        return orjson.dumps(body)


def parse_chat(raw: bytes) -> ChatRequest:
    """Raises BadField."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadField(
            f"The request's body is not valid JSON: {error}. Send one JSON object with `model` and `messages`.",
            code="invalid_json",
        ) from error
    if not isinstance(body, dict):
        raise BadField(
            f"The request's body must be a JSON object with `model` and `messages`, not {_kind(body)}.",
            code="invalid_type",
        )
    return ChatRequest(
        model=_model(body),
        stream=_flag(body, "stream"),
        n=_count(body, "n", most=MOST_CHOICES) or 1,
        max_output_tokens=_count(body, "max_completion_tokens") or _count(body, "max_tokens") or 0,
        include_usage=_include_usage(body),
        fields=_with_messages(body),
        raw=raw,
    )


def _model(body: dict[str, Any]) -> str:
    if body.get("model") in (None, ""):
        raise BadField(
            "`model` is missing: name one of those that `GET /v1/models` lists.",
            param="model",
            code="missing_required_parameter",
        )
    model = body["model"]
    if not isinstance(model, str):
        raise _wrong_type("model", "a string", model)
    if len(model) > LONGEST_MODEL_NAME:
        raise BadField(
            f"`model` is {len(model)} characters long; no model's name has more than {LONGEST_MODEL_NAME}.",
            param="model",
            code="invalid_value",
        )
    return model


def _with_messages(body: dict[str, Any]) -> dict[str, Any]:
    messages = body.get("messages")
    if messages is None:
        raise BadField(
            "`messages` is missing: send the conversation as a list of {role, content} objects.",
            param="messages",
            code="missing_required_parameter",
        )
    if not isinstance(messages, list):
        raise _wrong_type("messages", "a list of objects", messages)
    if not messages:
        raise BadField("`messages` is empty: it needs at least one message.", param="messages", code="invalid_value")
    for place, message in enumerate(messages):
        if not isinstance(message, dict):
            raise _wrong_type(f"messages[{place}]", "an object with `role` and `content`", message)
    return body


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise _wrong_type(name, "true or false", value)
    return value


def _count(body: dict[str, Any], name: str, most: int | None = None) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong_type(name, "a whole number", value)
    if value < 1 or (most is not None and value > most) or value >= 1 << 32:
        upto = f" and at most {most}" if most is not None else ""
        raise BadField(f"`{name}` is {value}; it must be at least 1{upto}.", param=name, code="invalid_value")
    return value


def _include_usage(body: dict[str, Any]) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise _wrong_type("stream_options", "an object", options)
    wanted = options.get("include_usage")
    if wanted is not None and not isinstance(wanted, bool):
        raise _wrong_type("stream_options.include_usage", "true or false", wanted)
    return bool(wanted)


def _wrong_type(param: str, wanted: str, given: Any) -> BadField:
    return BadField(f"`{param}` must be {wanted}, not {_kind(given)}.", param=param, code="invalid_type")


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"
