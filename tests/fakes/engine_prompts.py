"""What is to be gone on with, or embedded: one text or several, in words or in tokens, as far as the engine takes them.

A token has no word here: as text it is `token7`, and counts one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.fakes.engine_flavours import Prompts


class BadPrompt(Exception):
    """The engine does not take it: 400, with this message."""


@dataclass(frozen=True, slots=True)
class Prompt:
    text: str
    tokens: int


def prompts_in(body: Mapping[str, Any], field: str, takes: Prompts) -> list[Prompt]:
    """Of `prompt` or `input`. Raises BadPrompt."""
    given = body.get(field)
    if isinstance(given, str):
        return [_in_words(given)]
    if takes is Prompts.ONE_TEXT:
        raise BadPrompt(f"json: cannot unmarshal {_go_name(given)} into Go struct field .{field} of type string")
    if not isinstance(given, list) or not given:
        raise BadPrompt(f"'{field}' must be a text, a list of texts, a list of tokens or a list of such lists")
    if takes is Prompts.TEXTS:
        if not all(isinstance(each, str) for each in given):
            raise BadPrompt("invalid input type")
        return [_in_words(each) for each in given]
    if takes is Prompts.MIXED and any(map(_is_token, given)) and all(_is_token(e) or isinstance(e, str) for e in given):
        return [_joined(given)]
    if all(map(_is_token, given)):
        return [_joined(given)]
    return [_one_of_several(each, field, takes) for each in given]


def _one_of_several(given: Any, field: str, takes: Prompts) -> Prompt:
    if isinstance(given, str):
        return _in_words(given)
    if isinstance(given, list) and given:
        if all(map(_is_token, given)):
            return _joined(given)
        if takes is Prompts.MIXED and all(_is_token(each) or isinstance(each, str) for each in given):
            return _joined(given)
    raise BadPrompt(f"'{field}' must be a text, a list of texts, a list of tokens or a list of such lists")


def _in_words(text: str) -> Prompt:
    return Prompt(text, len(text.split()))


def _joined(pieces: list[Any]) -> Prompt:
    """Of tokens, and of texts among them."""
    parts = [_in_words(piece) if isinstance(piece, str) else Prompt(f"token{piece}", 1) for piece in pieces]
    return Prompt(" ".join(part.text for part in parts), sum(part.tokens for part in parts))


def _is_token(given: Any) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and given >= 0


def _go_name(given: Any) -> str:
    return {list: "array", dict: "object", bool: "bool"}.get(type(given), "number")
