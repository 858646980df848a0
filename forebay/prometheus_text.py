"""The Prometheus text format, read: the samples of a few families on an engine's /metrics page. Pure.

Such a page is mostly histograms that nobody here wants (a vLLM's is 80 kB, of several replicas a megabyte), so a pattern
runs over its bytes and lines of other families are passed over without an object being made of any."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

# Possessive, so that no text makes it try twice. A label's value may hold a brace or a blank, never a bare quote.
_LABELS = rb'(?:\{((?:[^"{}\n]++|"(?:[^"\\\n]++|\\[^\n])*+")*+)\})?'
_VALUE = rb"[ \t]+\+?([0-9.]{1,64}(?:[eE][+-]?[0-9]{1,8})?)(?=[ \t\r\n]|\Z)"
_LABEL = re.compile(rb'(?:^|,)[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


class Sample(NamedTuple):
    name: str
    labels: bytes
    """As they stand between the braces; `labels_of` reads them."""
    value: float
    """From zero on, and finite."""


class Scanner:
    """For the samples of these families, by their whole names."""

    def __init__(self, names: Collection[str]) -> None:
        # The line's end before a name is what makes the search fast: hardly any place on the page begins like it.
        longest_first = sorted((re.escape(name.encode()) for name in names), key=len, reverse=True)
        self._pattern = re.compile(rb"\n(" + b"|".join(longest_first) + b")" + _LABELS + _VALUE)

    def scan(self, page: bytes) -> Iterator[Sample]:
        """In the page's order. What is not a number from zero on is left out."""
        for found in self._pattern.finditer(b"\n" + page):
            name, labels, number = found.groups()
            try:
                value = float(number)
            except ValueError:
                continue
            if math.isfinite(value):
                yield Sample(name.decode(), labels or b"", value)


def labels_of(sample: Sample) -> Mapping[str, str]:
    return {
        name.decode(): _ESCAPED.sub(_unescaped, value).decode(errors="replace")
        for name, value in _LABEL.findall(sample.labels)
    }


def _unescaped(found: re.Match[bytes]) -> bytes:
    return b"\n" if found[1] == b"n" else found[1]
