"""What a request asks of the fake engine, and the answer that follows from it: the same request, the same words.

An answer is `word0 word1 word2 …`, one word a token, in every choice, unless its request wishes for more or for something
else (`engine_wishes`). A prompt counts one token for each word between blanks and three more for each chat message (its
role and marks). Shapes on the wire are `engine_dialects`' business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.fakes.engine_composing import CallArguments, CallOpening, Piece, Speech, Thought, compose
from tests.fakes.engine_flavours import Logprobs, Traits
from tests.fakes.engine_messages import BadMessage, text_of
from tests.fakes.engine_prompts import BadPrompt, Prompt, prompts_in
from tests.fakes.engine_schema import BadSchema
from tests.fakes.engine_wishes import BadWish, Call, Wishes, completion_wishes, ollama_wishes, openai_wishes

NO_WISHES = Wishes()
TOKENS_PER_MESSAGE = 3
_CACHED = re.compile(r"fake_cached_tokens=(\d{1,6})")


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
    """Words of an answer that nothing cuts short; it ends with `stop`."""

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
    wishes: Wishes = NO_WISHES
    top_logprobs: int | None = None
    """How many alternatives to tell with each token's log probability; None: no log probabilities."""
    cached_tokens: int | None = None
    """How many tokens of the prompt to call cached; None: nothing is said of it."""
    prompts: tuple[Prompt, ...] = ()
    """Of a completion."""
    echoes: bool = False
    """Each answer begins with its prompt."""

    @property
    def width(self) -> int:
        return len(self.prompt_tokens) * self.n

    def apart(self) -> list[Order]:
        """One for each prompt, whose answer is its own."""
        if len(self.prompts) < 2:
            return [self]
        return [
            replace(self, prompts=(prompt,), prompt_tokens=(prompt.tokens,), wishes=completion_wishes(prompt.text))
            for prompt in self.prompts
        ]


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice; all choices are alike."""

    pieces: tuple[Piece, ...]
    """One a token. A stop string and what follows it are left out."""
    tokens: int
    """Tokens made, those of a stop string among them."""
    finish: str
    """`stop` or `length`."""
    stopped_by: str | None = None
    """The stop string that ended it."""

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces if isinstance(piece, Speech))

    @property
    def thoughts(self) -> str:
        return "".join(piece.text for piece in self.pieces if isinstance(piece, Thought))

    @property
    def calls(self) -> list[Call]:
        """As far as they were made; the arguments of the last one may be cut short."""
        calls: list[Call] = []
        for piece in self.pieces:
            if isinstance(piece, CallOpening):
                calls.append(Call(piece.name, ""))
            elif isinstance(piece, CallArguments):
                calls[-1] = replace(calls[-1], arguments=calls[-1].arguments + piece.text)
        return calls


def usage_of(order: Order, answers: Sequence[Answer], *, per_choice: bool) -> Usage:
    """`answers`: one for each prompt. `per_choice`: of the first choice alone."""
    if per_choice:
        return Usage(order.prompt_tokens[0], answers[0].tokens)
    return Usage(sum(order.prompt_tokens), order.n * sum(answer.tokens for answer in answers))


def word(i: int) -> str:
    """Text of usual word i of every answer."""
    return f"word{i}" if i == 0 else f" word{i}"


def answer(order: Order, pace: Pace, context_tokens: int) -> Answer:
    if order.echoes and order.max_tokens == 0:
        return Answer((Speech(""),), 1, "length")
    room = max(1, context_tokens - max(order.prompt_tokens))
    limit = room if order.max_tokens is None else min(room, max(1, order.max_tokens))
    script = compose(order.wishes)
    wanted = len(script.pieces) + (pace.answer_tokens if script.goes_on else 0)
    length = limit if order.ignores_end and script.goes_on else min(limit, wanted)
    usual = (Speech(word(i)) for i in range(length - len(script.pieces)))
    pieces = (*script.pieces[:length], *usual)
    return _stopped(pieces, order.stops) or Answer(pieces, length, "length" if length == limit else "stop")


def _stopped(pieces: tuple[Piece, ...], stops: tuple[str, ...]) -> Answer | None:
    """The answer that ends before the first stop string in its speech, if there is one."""
    if not stops:
        return None
    text = "".join(piece.text for piece in pieces if isinstance(piece, Speech))
    found = [(at, at + len(stop), stop) for stop in stops if stop and (at := text.find(stop)) >= 0]
    if not found:
        return None
    stop_at, stop_end, stop = min(found)
    shown: list[Piece] = []
    begin = 0
    for piece in pieces:
        if isinstance(piece, Speech):
            shown.append(Speech(piece.text[: max(0, stop_at - begin)]))
            begin += len(piece.text)
        else:
            shown.append(piece)
        if begin >= stop_end:
            break
    return Answer(tuple(shown), len(shown), "stop", stopped_by=stop)


def order_chat(body: Mapping[str, Any], traits: Traits | None = None) -> Order:
    messages = body.get("messages")
    if not messages:
        raise BadOrder("'messages' is required")
    order = _openai_order(body, (chat_tokens(messages),))
    return replace(order, wishes=_wishes(openai_wishes, body), top_logprobs=_top_logprobs(body))


def order_completion(body: Mapping[str, Any], traits: Traits) -> Order:
    try:
        prompts = tuple(prompts_in(body, "prompt", traits.prompts))
    except BadPrompt as error:
        raise BadOrder(str(error)) from error
    top = body.get("logprobs")
    if top is not None and not isinstance(top, int):
        raise BadOrder("'logprobs' must be a whole number")
    if top is not None and traits.most_logprobs is not None and top > traits.most_logprobs:
        raise BadOrder(f"Requested sample logprobs of {top}, which is greater than max allowed: {traits.most_logprobs}")
    return replace(
        _openai_order(body, tuple(prompt.tokens for prompt in prompts)),
        wishes=completion_wishes(prompts[0].text),
        prompts=prompts,
        echoes=traits.echoes and bool(body.get("echo")),
        top_logprobs=None if traits.logprobs is Logprobs.UNTOLD else top,
    )


def order_ollama(body: Mapping[str, Any], traits: Traits | None = None) -> Order:
    """Of /api/chat (`messages`) and /api/generate (`prompt`)."""
    messages = body.get("messages")
    tokens = words_in(body.get("prompt")) if messages is None else chat_tokens(messages)
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
        wishes=_wishes(ollama_wishes, body),
        top_logprobs=_top_logprobs(body),
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
        cached_tokens=cached_tokens(body),
    )


def cached_tokens(body: Mapping[str, Any]) -> int | None:
    """The field `fake_cached_tokens`, of any request whose answer tells usage in OpenAI's shape; or the same in words, of a
    request that comes through a dialect which drops unknown fields: `fake_cached_tokens=3` in a prompt."""
    given = body.get("fake_cached_tokens")
    if isinstance(given, int):
        return given
    told = _CACHED.search(str(body.get("messages") or body.get("prompt") or ""))
    return int(told[1]) if told else None


def chat_tokens(messages: Any) -> int:
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise BadOrder("'messages' must be a list of objects")
    return sum(TOKENS_PER_MESSAGE + words_in(message.get("content")) for message in messages)


def words_in(content: Any) -> int:
    """Words of a text, or of the text parts of a message."""
    return len(text_of(content).split())


def _stops(given: Any) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


def _wishes(read: Callable[[Mapping[str, Any]], Wishes], body: Mapping[str, Any]) -> Wishes:
    try:
        return read(body)
    except (BadWish, BadMessage, BadSchema) as error:
        raise BadOrder(str(error)) from error


def _top_logprobs(body: Mapping[str, Any]) -> int | None:
    if body.get("logprobs") is not True:
        return None
    given = body.get("top_logprobs")
    return given if isinstance(given, int) else 0
