"""What a dialect must be able to do. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from forebay.errors import ForebayError
from forebay_gateway.rate_standing import RateStanding, rate_headers

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A refusal as a client gets it."""

    status: int
    headers: dict[str, str]
    body: bytes
    event: bytes
    """The same in a stream that has begun; nothing comes after it."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """A family of clients, told by the address that they ask."""

    name: str
    render: Callable[[ForebayError, str], Rendered]
    """(error, request id)"""
    stream_type: str = "text/event-stream; charset=utf-8"
    """The content type of its streams."""
    takes_comments: bool = True
    """Whether a stream may say `: waiting` before its answer begins."""
    id_header: str = "x-request-id"
    """Where its clients look for the id of a request, which is told as `x-request-id` anyway."""
    rate_headers: Callable[[RateStanding, float], dict[str, str]] = rate_headers
    """(what a key has left of its limits, seconds since the epoch)"""
    failing: Callable[[Rendered, Translation | None], bytes] = lambda rendered, translation: rendered.event
    """How a stream that has begun ends with a refusal, where that hangs on what it told before."""

    def id_headers(self, request_id: str) -> dict[str, str]:
        return {"x-request-id": request_id, self.id_header: request_id}


class ChunkWriter(Protocol):
    """Writes one answer as it grows, in the client's dialect. Only for dialects other than OpenAI's."""

    def write(self, chunk: Json) -> bytes:
        """One of OpenAI's chunks (`chat.completion.chunk` or `text_completion`) that adds to the answer or ends a choice.
        The first call also begins the answer. May give nothing."""
        ...

    def end(self, usage: Json) -> bytes:
        """After the last chunk, once: what remains to be said. `usage` is OpenAI's object (`prompt_tokens`,
        `completion_tokens`, and `prompt_tokens_details` where the engine told)."""
        ...


class Translation(Protocol):
    """From OpenAI's answers to those of another dialect, for one request, which it knows."""

    def whole(self, answer: Json) -> Json:
        """A whole answer: `chat.completion`, `text_completion` or a `list` of embeddings, with `usage`."""
        ...

    def rename(self, model: str) -> None:
        """Another model answers than was asked, which the client gets to know by this name."""
        ...

    def writer(self, estimated_prompt: int) -> ChunkWriter:
        """For an answer that is streamed. `estimated_prompt`: tokens, for dialects that tell them before the answer."""
        ...
