"""Requests that ask for no answer: Ollama loads the model, or unloads it, and says so at once. Pure.

They must not reach an engine that speaks another dialect: to such a one they would be an empty conversation. Its models stay
loaded, so that Ollama's reply is true of it as it stands."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.fields import wrong_type
from forebay_gateway.dialects.ollama.native import native_body
from forebay_gateway.dialects.ollama.parts import AnswerForm, Part
from forebay_gateway.refused import BadField

# Go's: https://pkg.go.dev/time#ParseDuration
_DURATION = re.compile(r"[-+]?(?:0|(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Loading:
    """What the parsers give instead of `Asked`."""

    model: str
    """As the client calls it."""
    path: str
    """At an Ollama engine, the same as here."""
    is_unload: bool
    """Meant for each engine that has the model loaded, not for one of them."""
    body: Json
    answer: Callable[[str], Json]
    """What the client gets, whether it asked for a stream or not; given the time, as RFC 3339 has it."""

    def native_body(self, model_at_engines: str) -> bytes:
        """For an Ollama engine; streamed or not, it answers with one object. Raises BadField."""
        return native_body(self.body, model_at_engines, None)


def load_or_unload(model: str, form: AnswerForm, body: Json) -> Loading:
    """Raises BadField."""
    is_unload = ends_at_once(body)

    def answer(created_at: str) -> Json:
        said = {"model": model, "created_at": created_at, **form.say(Part())}
        return {**said, "done": True, "done_reason": "unload" if is_unload else "load"}

    return Loading(model, form.path, is_unload, body, answer)


def ends_at_once(body: Json) -> bool:
    """Whether `keep_alive`, how long Ollama is to keep the model loaded, is zero: it is seconds, or a duration such as "5m",
    and below zero for ever. Raises BadField."""
    told = body.get("keep_alive")
    if told is None or told == "":
        return False
    if isinstance(told, bool) or not isinstance(told, int | float | str):
        raise wrong_type("keep_alive", 'a number of seconds, or a duration such as "5m"', told)
    if isinstance(told, str):
        if not _DURATION.fullmatch(told):
            raise BadField(
                f'`keep_alive` is "{told[:40]}"; it can be a number of seconds, or a duration such as "5m" or "1h30m".',
                param="keep_alive",
                code="invalid_value",
            )
        return not re.search("[1-9]", told)
    return told == 0
