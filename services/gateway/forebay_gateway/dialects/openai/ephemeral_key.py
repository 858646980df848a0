"""Ephemeral keys: what a request for one says, and how one is told. Pure.

`expires_after` and `value`, `expires_at` are OpenAI's own of its realtime client secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass

from forebay.ephemeral_keys import LONGEST_S, MOST_MODELS, USUAL_S, Narrowing
from forebay_gateway.callers.key_terms import parse_address
from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.fields import count_in, model_of, parse_object, wrong_type
from forebay_gateway.canonical.typed import bad_value, object_in, string_in

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]{0,30}://[\x21-\x2e\x30-\x7e]{1,253}")
_FIELDS = ("expires_after", "models", "max_output_tokens", "origin", "address")


@dataclass(frozen=True, slots=True)
class EphemeralWish:
    seconds: int
    narrowing: Narrowing


def parse_ephemeral_key(raw: bytes) -> EphemeralWish:
    """An empty body wishes for nothing in particular. Raises BadField."""
    body = parse_object(raw, "what the key is for") if raw.strip() else {}
    for name in body:
        if name not in _FIELDS:  # one that was meant to narrow the key and did not would be worse than none
            raise bad_value(name[:80], f"`{name[:80]}` is not a field; there are {', '.join(_FIELDS)}.")
    return EphemeralWish(
        _seconds(body),
        Narrowing(_models(body), count_in(body, "max_output_tokens"), _origin(body), _address(body)),
    )


def tell_ephemeral_key(value: str, expires_at: int, narrowing: Narrowing) -> Json:
    return {
        "object": "ephemeral_key",
        "value": value,
        "expires_at": expires_at,
        "models": sorted(narrowing.models),
        "max_output_tokens": narrowing.max_output_tokens,
        "origin": narrowing.origin or None,
        "address": narrowing.address or None,
    }


def _seconds(body: Json) -> int:
    after = object_in(body, "expires_after") or {}
    anchor = after.get("anchor", "created_at")
    if anchor != "created_at":
        raise bad_value("expires_after.anchor", "`expires_after.anchor` can be created_at.")
    seconds = after.get("seconds", USUAL_S)
    if isinstance(seconds, bool) or not isinstance(seconds, int):
        raise wrong_type("expires_after.seconds", "a whole number", seconds)
    if not 1 <= seconds <= LONGEST_S:
        raise bad_value(
            "expires_after.seconds", f"`expires_after.seconds` is {seconds}; an ephemeral key lives 1 to {LONGEST_S} s."
        )
    return seconds


def _models(body: Json) -> frozenset[str]:
    models = body.get("models")
    if models is None:
        return frozenset()
    if not isinstance(models, list):
        raise wrong_type("models", "a list of models' names", models)
    if not 1 <= len(models) <= MOST_MODELS:
        raise bad_value("models", f"`models` has 1 to {MOST_MODELS} names; leave it out to allow what the key allows.")
    return frozenset(model_of(name) for name in models)


def _origin(body: Json) -> str:
    origin = string_in(body, "origin")
    if origin is not None and not _ORIGIN.fullmatch(origin):
        raise bad_value("origin", "`origin` is one as browsers send it, such as https://chat.example.org.")
    return origin or ""


def _address(body: Json) -> str:
    address = string_in(body, "address")
    if address is not None and parse_address(address) is None:
        raise bad_value("address", f"`address` is {address[:80]!r}, which is no IP address.")
    return address or ""
