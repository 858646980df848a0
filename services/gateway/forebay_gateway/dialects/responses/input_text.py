"""The text that a model gives a tool which takes one text, as it grows: engines know only functions, whose arguments are
JSON, so it comes as `{"input": "…"}`. Pure."""

from __future__ import annotations

import re

import orjson

INPUT = "input"
"""The only argument."""

_OPENING = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_WHOLE = re.compile(
    r'(?:[^"\\]|\\[^u]|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*',
    re.DOTALL,
)
"""Characters of a JSON text that stand for something without what comes after them."""
_LONGEST_ESCAPE = 12
_NO_ESCAPE = re.compile(r'(\\["\\/bfnrtu])|\\', re.DOTALL)
_CONTROLS = {code: f"\\u{code:04x}" for code in range(32)}


def as_arguments(text: str) -> str:
    return orjson.dumps({INPUT: text}).decode()


class InputText:
    def __init__(self) -> None:
        self._raw = ""
        self._told = 0
        """Characters of it that were given."""
        self._is_open = False
        self.is_whole = False

    def feed(self, arguments: str) -> str:
        """What can be told of it now. Of arguments of another form: nothing before the end."""
        if self.is_whole:
            return ""
        self._raw += arguments
        if not self._is_open:
            opening = _OPENING.match(self._raw)
            if opening is None:
                return ""
            self._is_open, self._told = True, opening.end()
        known = _WHOLE.match(self._raw, self._told)
        assert known is not None, "no character is one too"
        self._told = known.end()
        self.is_whole = self._raw.startswith('"', self._told)
        return _read(known[0])

    def rest(self) -> str:
        """At the end: a model that did not keep to the form has said something all the same."""
        if self._is_open:
            left = "" if self.is_whole else self._raw[self._told :]
            return left if len(left) >= _LONGEST_ESCAPE else ""  # else it was cut within one
        try:
            told = orjson.loads(self._raw)
        except orjson.JSONDecodeError:
            return self._raw
        text = told.get(INPUT) if isinstance(told, dict) else told
        return text if isinstance(text, str) else self._raw


def input_in(arguments: str) -> str:
    """Of a call that is whole."""
    text = InputText()
    return text.feed(arguments) + text.rest()


def _read(told: str) -> str:
    """Models forget to escape what is special to JSON: a line's end, or the backslash of a regular expression."""
    escaped = _NO_ESCAPE.sub(lambda found: found[1] or "\\\\", told).translate(_CONTROLS)
    return str(orjson.loads(f'"{escaped}"'))
