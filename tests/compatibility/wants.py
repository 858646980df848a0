"""What is asked of every client library, and what comes back, in words of no dialect."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

Json = dict[str, Any]
Embedded = list[str] | list[list[int]]
"""Texts, in words or in tokens."""


ANY, NONE = "any tool", "no tool"


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    parameters: Json


@dataclass(frozen=True, slots=True)
class Called:
    name: str
    arguments: Json
    id: str = ""


@dataclass(frozen=True, slots=True)
class Want:
    text: str
    system: str = ""
    tools: tuple[Tool, ...] = ()
    forced: str = ""
    """The tool that must be called; or ANY, or NONE."""
    result: tuple[Called, str] | None = None
    """A call that the model made before, and what came of it."""
    schema: Json | None = None
    json_mode: bool = False
    thinks: bool | None = None
    image: bytes = b""
    logprobs: int = 0
    """So many alternatives to each token."""
    seed: int | None = None
    stop: str = ""
    max_tokens: int = 400
    model: str = ""
    prompts: tuple[str, ...] = ()
    """Several instead of `text`."""
    tokens: tuple[int, ...] = ()
    """A prompt in tokens, instead of `text`."""
    echo: bool = False
    """The prompt is to come back before the answer."""
    n: int = 1
    """So many answers."""
    asks_for_cached: bool = False
    """How many tokens of the prompt were cached is to be told."""

    @property
    def goes_on(self) -> bool:
        """What only plain completions have words for."""
        return bool(self.prompts or self.tokens or self.echo)


@dataclass(slots=True)
class Said:
    text: str = ""
    reasoning: str = ""
    calls: list[Called] = field(default_factory=list)
    finish: str = ""
    """`stop`, `length` or `tools`."""
    prompt_tokens: int = 0
    """All of them, cached ones too."""
    completion_tokens: int = 0
    cached_tokens: int = 0
    logprobs: int = 0
    """Tokens of which the probability was told."""
    pieces: int = 0
    """In which the text came."""
    texts: list[str] = field(default_factory=list)
    """Of each answer, where several were wanted; `text` is all of them."""


class NotInDialect(Exception):
    """The client's dialect, or its library, has no words for this."""


class Refused(Exception):
    """The library raised the error that it has for a status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message


class Broke(Exception):
    """The library raised in the middle of a stream."""


class Client(Protocol):
    name: str
    """Of the library and the address."""

    async def ask(self, want: Want, *, stream: bool) -> Said:
        """Raises NotInDialect, Refused, Broke."""
        ...

    async def embed(self, texts: Embedded, *, dimensions: int | None = None) -> list[list[float]]: ...

    async def embed_by_older_address(self, text: str) -> list[float]: ...

    async def close(self) -> None: ...
