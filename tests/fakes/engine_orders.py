"""What a request asks of the fake engine, and the answer that follows from it: the same request, the same words.

An answer is `word0 word1 word2 …`, one word a token, in every choice. A prompt counts one token for each word between
blanks and three more for each chat message (its role and marks). Shapes on the wire are `engine_dialects`' business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

TOKENS_PER_MESSAGE = 3


class BadOrder(Exception):
    """The body cannot be served: 400, with this message."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the engine answers. A request may override each field: by its body's `fake` object, by a header
    (`x-fake-tokens-per-s` …) or by the model's name (`fake-model@tokens_per_s=5,ttft_s=0.5`), the body first."""

    tokens_per_s: float = 50.0
    """Per choice; choices do not slow each other."""
    ttft_s: float = 0.02
    """From holding the slots to the first token."""
    answer_tokens: int = 100
    """Length of an answer that nothing cuts short; it ends with `stop`."""

    def changed(self, wishes: Mapping[str, Any]) -> Pace:
        try:
            return replace(self, **{name: type(getattr(self, name))(value) for name, value in wishes.items()})
        except (AttributeError, TypeError, ValueError) as error:
            raise BadOrder(f"no such pace: {dict(wishes)}") from error

    def wished(self, model: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> Pace:
        _, _, suffix = model.partition("@")
        by_model = dict(wish.split("=", 1) for wish in suffix.split(",") if "=" in wish)
        by_header = {
            name.removeprefix("x-fake-").replace("-", "_"): value
            for name, value in headers.items()
            if name.startswith("x-fake-")
        }
        by_body = body.get("fake")
        return self.changed(by_model | by_header | (by_body if isinstance(by_body, dict) else {}))


@dataclass(frozen=True, slots=True)
class Order:
    """A generation, as asked for."""

    model: str
    prompt_tokens: tuple[int, ...]
    """Of each prompt; chat has one."""
    n: int
    stream: bool
    wants_usage: bool
    max_tokens: int | None
    ignores_end: bool
    """Go on to `max_tokens` instead of ending where the answer would."""
    stops: tuple[str, ...]

    @property
    def width(self) -> int:
        return len(self.prompt_tokens) * self.n


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice; all choices are alike."""

    pieces: tuple[str, ...]
    """The text of each token. A stop string and what follows it are left out."""
    tokens: int
    """Tokens made, those of a stop string among them."""
    finish: str
    """`stop` or `length`."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def usage(self, order: Order, *, per_choice: bool) -> Usage:
        if per_choice:
            return Usage(order.prompt_tokens[0], self.tokens)
        return Usage(sum(order.prompt_tokens), self.tokens * order.width)


def word(i: int) -> str:
    """Text of token i of every answer."""
    return f"word{i}" if i == 0 else f" word{i}"


def answer(order: Order, pace: Pace, context_tokens: int) -> Answer:
    room = max(1, context_tokens - max(order.prompt_tokens))
    limit = room if order.max_tokens is None else min(room, max(1, order.max_tokens))
    length = limit if order.ignores_end else min(limit, pace.answer_tokens)
    words = [word(i) for i in range(length)]
    text = "".join(words)
    stop_at, stop_end = min(
        ((at, at + len(stop)) for stop in order.stops if stop and (at := text.find(stop)) >= 0),
        default=(len(text), None),
    )
    pieces: list[str] = []
    begin = 0
    for piece in words:
        pieces.append(piece[: max(0, stop_at - begin)])
        begin += len(piece)
        if stop_end is not None and begin >= stop_end:
            return Answer(tuple(pieces), len(pieces), "stop")
    return Answer(tuple(pieces), len(pieces), "length" if length == limit else "stop")


def order_chat(body: Mapping[str, Any]) -> Order:
    messages = body.get("messages")
    if not messages:
        raise BadOrder("'messages' is required")
    return _openai_order(body, (_chat_tokens(messages),))


def order_completion(body: Mapping[str, Any]) -> Order:
    return _openai_order(body, tuple(_words(text) for text in texts_in(body, "prompt")))


def order_ollama(body: Mapping[str, Any]) -> Order:
    """Of /api/chat (`messages`) and /api/generate (`prompt`)."""
    messages = body.get("messages")
    tokens = _words(body.get("prompt")) if messages is None else _chat_tokens(messages)
    options = body.get("options") or {}
    limit = options.get("num_predict")
    return Order(
        model=str(body.get("model") or ""),
        prompt_tokens=(tokens,),
        n=1,
        stream=body.get("stream", True) is not False,
        wants_usage=True,
        max_tokens=limit if isinstance(limit, int) and limit >= 0 else None,
        ignores_end=False,
        stops=_stops(options.get("stop")),
    )


def texts_in(body: Mapping[str, Any], field: str) -> list[str]:
    """`prompt` or `input`: one text or several. Raises BadOrder for anything else."""
    given = body.get(field)
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise BadOrder(f"'{field}' must be a text or a list of texts")
    return texts


def _openai_order(body: Mapping[str, Any], prompt_tokens: tuple[int, ...]) -> Order:
    n = body.get("n") or 1
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    if not isinstance(n, int) or n < 1:
        raise BadOrder("'n' must be a positive whole number")
    if limit is not None and not isinstance(limit, int):
        raise BadOrder("'max_tokens' must be a whole number")
    return Order(
        model=str(body.get("model") or ""),
        prompt_tokens=prompt_tokens,
        n=n,
        stream=bool(body.get("stream")),
        wants_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        max_tokens=limit,
        ignores_end=bool(body.get("ignore_eos")),
        stops=_stops(body.get("stop")),
    )


def _stops(given: Any) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


def _chat_tokens(messages: Any) -> int:
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise BadOrder("'messages' must be a list of objects")
    return sum(TOKENS_PER_MESSAGE + _words(message.get("content")) for message in messages)


def _words(content: Any) -> int:
    """Words of a text, or of the text parts of a message."""
    if isinstance(content, list):
        return sum(_words(part.get("text")) for part in content if isinstance(part, dict))
    return len(content.split()) if isinstance(content, str) else 0
