"""The fields that OpenAI's requests have in common: parsed once, checked where the gateway itself relies on them.

Fields that are unknown here travel on untouched; the engine judges them. Every complaint names its parameter."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import orjson

from forebay_gateway.refused import BadField, BodyTooLarge

LONGEST_MODEL_NAME = 256
MOST_CHOICES = 128
MOST_MODELS = 16
MOST_VALUES = 2_000_000
"""Of one body, counted by its commas and brackets, those within texts too. Each takes up to a hundred bytes once it is read:
brackets alone, as many as a body may be long, would be 800 MiB and hold up everybody else for seconds."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_OTHER_CASES = frozenset(map("".join, product(*zip("model", "MODEL", strict=True)))) - {"model"}


def parse_object(raw: bytes, fields: str) -> dict[str, Any]:
    """`fields`: what it needs, in words. Raises BadField, BodyTooLarge."""
    if len(raw) > MOST_VALUES and sum(map(raw.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise BodyTooLarge(f"The request's body has more than {MOST_VALUES} values, the most that this gateway takes.")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadField(
            f"The request's body is not valid JSON: {error}. Send one JSON object with {fields}.", code="invalid_json"
        ) from error
    if type(body) is not dict:
        raise BadField(
            f"The request's body must be a JSON object with {fields}, not {kind_of(body)}.", code="invalid_type"
        )
    if not _OTHER_CASES.isdisjoint(body):
        # Ollama reads names without regard to case: it would take this model, which nobody here has checked.
        name = next(name for name in body if name in _OTHER_CASES)
        raise BadField(f"`{name}` is not a field; write `model`.", param="model", code="invalid_value")
    return body


def model_in(body: dict[str, Any]) -> str:
    return model_of(body.get("model"))


def model_if_said(body: dict[str, Any]) -> str:
    """Empty: the request says none, and whoever knows the fleet finds one. Raises BadField."""
    return model_of(body["model"]) if body.get("model") not in (None, "") else ""


def models_in(body: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The model, and those that are to be asked if it does not answer, which OpenRouter's clients send as a list `models`.
    That is taken out of `body`: other engines do not know it. Raises BadField."""
    listed = body.pop("models", None)
    if listed is None:
        return model_of(body.get("model")), ()
    if not isinstance(listed, list):
        raise wrong_type("models", "a list of models' names", listed)
    if len(listed) > MOST_MODELS:
        raise BadField(
            f"`models` has {len(listed)} names; one request may name at most {MOST_MODELS}.",
            param="models",
            code="invalid_value",
        )
    body.pop("route", None)  # says the same
    others = [model_of(name) for name in listed]
    if body.get("model") in (None, "") and others:
        body["model"] = others[0]
    model = model_in(body)
    return model, tuple(dict.fromkeys(name for name in others if name != model))


def model_of(model: Any) -> str:
    """Raises BadField when it cannot be the name of one."""
    if model in (None, ""):
        raise BadField(
            "`model` is missing: name one of those that `GET /v1/models` lists.",
            param="model",
            code="missing_required_parameter",
        )
    if type(model) is not str:
        raise wrong_type("model", "a string", model)
    if len(model) > LONGEST_MODEL_NAME:
        raise BadField(
            f"`model` is {len(model)} characters long; no model's name has more than {LONGEST_MODEL_NAME}.",
            param="model",
            code="invalid_value",
        )
    if _CONTROL.search(model):  # the ledger, for one, could not keep it
        raise BadField("`model` has a control character; no model's name has one.", param="model", code="invalid_value")
    return model


def flag_in(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise wrong_type(name, "true or false", value)
    return value


def count_in(body: dict[str, Any], name: str, *, least: int = 1, most: int | None = None) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int:
        raise wrong_type(name, "a whole number", value)
    if value < least or (most is not None and value > most) or value >= 1 << 32:
        upto = f" and at most {most}" if most is not None else ""
        raise BadField(f"`{name}` is {value}; it must be at least {least}{upto}.", param=name, code="invalid_value")
    return value


def include_usage_in(body: dict[str, Any]) -> bool:
    """As OpenAI's clients ask for it, or OpenRouter's. Raises BadField."""
    usage = body.get("usage")
    if isinstance(usage, dict) and usage.get("include") is True:
        return True
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise wrong_type("stream_options", "an object", options)
    wanted = options.get("include_usage")
    if wanted is not None and not isinstance(wanted, bool):
        raise wrong_type("stream_options.include_usage", "true or false", wanted)
    return bool(wanted)


def texts_in(body: dict[str, Any], name: str, what: str) -> int:
    """How many texts there are: one string, a list of them, one text's tokens, or a list of such. `what` says what to send
    when there is nothing. Raises BadField."""
    value = body.get(name)
    if value is None:
        raise BadField(f"`{name}` is missing: {what}.", param=name, code="missing_required_parameter")
    if isinstance(value, str):
        return 1
    if not isinstance(value, list):
        raise wrong_type(name, "a string, a list of strings, or tokens", value)
    if not value:
        raise BadField(f"`{name}` is empty: {what}.", param=name, code="invalid_value")
    if all(_is_token(entry) for entry in value):
        return 1
    for place, entry in enumerate(value):
        if not isinstance(entry, str) and not (isinstance(entry, list) and all(map(_is_token, entry))):
            raise wrong_type(f"{name}[{place}]", "a string or a list of tokens, like the others", entry)
    return len(value)


def wrong_type(param: str, wanted: str, given: Any) -> BadField:
    return BadField(f"`{param}` must be {wanted}, not {kind_of(given)}.", param=param, code="invalid_type")


def kind_of(value: Any) -> str:
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


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
