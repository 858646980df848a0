"""One way to ask for an answer: a path, the dialect spoken there, and how a request of it is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from forebay_gateway.asked import Asked
from forebay_gateway.callers.principals import Principal
from forebay_gateway.canonical.dialect import Dialect
from forebay_gateway.canonical.upload import Upload
from forebay_gateway.dialects.ollama.loading import Loading
from forebay_gateway.keeping.room import Hold

Prepare = Callable[[bytes, Principal, Hold], Awaitable[tuple[Asked, int]]]
"""Gives the request, and of how many bytes the prompt was made. Raises BadField, BodyTooLarge, Refused, StateUnavailable."""


@dataclass(frozen=True, slots=True)
class Route:
    path: str
    dialect: Dialect
    parse: Callable[[bytes], Asked | Loading] | None = None
    """Raises BadField."""
    parse_upload: Callable[[Upload], Asked] | None = None
    """For what comes as a form. Raises BadField."""
    prepare: Prepare | None = None
    """For what builds on something that has to be looked up first."""
    prompt: str = "messages"
    """The field in which its clients write what the model is to read."""
