"""What Anthropic's clients can say to Anthropic alone. Pure.

A request that has some of it keeps its own words for Anthropic; the form that other engines get is made without it, and they
are not asked. So what is wrong anywhere else in it is still found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.refused import BadField


class OnlyAnthropic(BadField):
    """Other engines have no words for this."""


class Untranslated:
    def __init__(self) -> None:
        self.first: OnlyAnthropic | None = None
        """What a client is told when no engine of Anthropic's is there; None: all has been translated."""

    @contextmanager
    def noted(self) -> Iterator[None]:
        try:
            yield
        except OnlyAnthropic as error:
            self.first = self.first or error

    def fields_of(self, translate: Callable[[Json], Json], body: Json) -> Json:
        """Nothing for what cannot be translated. Raises BadField."""
        with self.noted():
            return translate(body)
        return {}
