"""A streamed answer on its way through: events in, the bytes that the client gets out, and what was learnt.

Pure. Four things are changed and nothing else: the usage chunk is dropped when the client did not ask for it (the gateway
always does), several usage chunks become one, the model's name is the one that the client asked for, and thoughts are told
by both of their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from forebay_gateway.accounting import Usage, UsageSource
from forebay_gateway.canonical.dialect import ChunkWriter, Translation
from forebay_gateway.canonical.forms import CHAT, Form
from forebay_gateway.canonical.repeated_chunk import RepeatedChunk
from forebay_gateway.canonical.sse import Event, EventTooLong, Splitter
from forebay_gateway.canonical.structured import Gathered, Mending
from forebay_gateway.canonical.thoughts import may_tell_thoughts, name_thoughts

_CHARACTERS_PER_TOKEN = 4
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class StreamError:
    """Why the stream cannot go on."""

    message: str
    body: dict[str, Any] | None = None
    """The engine's own error object, when it sent one."""


class Reading(Protocol):
    """Makes OpenAI's chunks of the events of an engine that speaks another dialect."""

    is_done: bool
    """The engine's end mark came."""
    prompt_tokens: int | None
    """As soon as the engine told."""

    def read(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """One that has `error` ends the stream."""
        ...


class AnswerStream:
    """Feed it what the engine sends. After `is_done` or `error` nothing more is taken."""

    def __init__(
        self,
        model: str,
        choices: int,
        *,
        wants_usage: bool,
        keeps_chunks: bool = False,
        form: Form = CHAT,
        samples: int | None = None,
        writer: ChunkWriter | None = None,
        translation: Translation | None = None,
    ) -> None:
        """`samples`: of the choices, so many in a row answer the same prompt; None: all. `writer`: for a client of another
        dialect; `translation`: for one that gets it folded."""
        self._writer, self._translation = writer, translation
        self.reword: Callable[[dict[str, Any]], None] | None = None
        """Changes a chunk before anyone looks at it, for an engine that had to be asked in other words."""
        self.reading: Reading | None = None
        """For an engine that speaks another dialect. An event that says `error` is one there too."""
        self.gathers: Gathered | None = None
        """The end of each choice waits for `tail` then, so that the answer may be judged before."""
        self.mending: Mending | None = None
        self._ends = b""
        self._preface = b""
        self._form = form
        self._samples = choices if samples is None else samples
        self._model = model
        self._named = (f'"model":{_json_text(model)}'.encode(), f'"model": {_json_text(model)}'.encode())
        self._wants_usage = wants_usage
        self._splitter = Splitter()
        self._repeated = RepeatedChunk(form.text)
        self._choices = choices
        self._open_choices = set(range(choices))
        self._usage_chunk: dict[str, Any] | None = None
        self._usage_raw = b""
        self._usage_in_passing: dict[str, Any] | None = None
        self._usage_of: dict[int, dict[str, Any]] | None = {}
        """Of each choice, as its last chunk said. None: chunks in between tell it too, and then of all together."""
        self._cut_usage: Usage | None = None
        """Of an answer that was cut."""
        self.counted = 0
        """Completion tokens, as far as chunks tell: one each."""
        self.has_begun = False
        """An event came that is part of an answer."""
        self.ended_by: dict[int, Any] = {}
        self.is_done = False
        self.error: StreamError | None = None
        self.chunks: list[dict[str, Any]] | None = [] if keeps_chunks else None
        self._latest: dict[str, Any] = {}
        """The newest chunk of the answer."""

    def feed(self, piece: bytes) -> bytes:
        """What the client gets for this; the tail of the answer (`tail`) excepted."""
        if (
            self._splitter.is_between
            and not self.is_done
            and self.error is None
            and (told := self._repeated.told(piece)) is not None
        ):
            self.counted += 1
            return told
        try:
            events = self._splitter.feed(piece)
        except EventTooLong:
            self.error = StreamError("The engine sent an event without end.")
            return b""
        return self._take(events[0]) if len(events) == 1 else b"".join([self._take(event) for event in events])

    def end(self) -> bytes:
        """The engine has ended the stream. Sets `is_done`, or `error` if the answer is not whole."""
        rest = self._splitter.rest()
        out = b""
        if rest is not None and _is_whole(rest):
            out = self._take(rest)
        if self.is_done or self.error is not None:
            return out
        if self.has_begun and not self._open_choices:
            self.is_done = True  # every choice was finished; only the end mark is missing
        else:
            self.error = StreamError("The engine ended its answer in the middle.")
        return out

    @property
    def repeats(self) -> RepeatedChunk | None:
        is_over = self.is_done or self.error is not None
        return self._repeated if self._repeated.is_known and self._splitter.is_between and not is_over else None

    @property
    def can_be_cut(self) -> bool:
        """A part of the answer is there and another is still to come."""
        return self.has_begun and bool(self._open_choices) and not self.is_done and self.error is None

    @property
    def is_cut(self) -> bool:
        return self._cut_usage is not None

    def cut(self, estimated_prompt: int) -> bytes:
        """Ends the answer here, as if it had reached its length. Gives the chunk that says so; `tail` comes after it."""
        used = self.usage(estimated_prompt)
        body: dict[str, Any] = {
            name: self._latest[name] for name in ("id", "created", "system_fingerprint") if name in self._latest
        }
        body |= {"object": self._form.chunk, "model": self._model}
        choices = [
            {"index": index, **self._form.unchanged, "finish_reason": "length"} for index in sorted(self._open_choices)
        ]
        last = {**body, "choices": choices}
        if self.chunks is not None:
            self.chunks.append(last)
        self._cut_usage = used
        if self._usage_chunk is None:
            whole = {**body, "choices": [], "usage": self._usage_in_passing or as_reported(used)}
            self._usage_chunk, self._usage_raw = whole, b"data: " + orjson.dumps(whole) + b"\n\n"
        self._open_choices.clear()
        self.is_done = True
        if self._writer is not None:
            return self._writer.write(last)
        return b"data: " + orjson.dumps(last) + b"\n\n"

    def tail(self, estimated_prompt: int) -> bytes:
        """The last bytes of a whole answer: usage if it was asked for, and the end mark."""
        if self._writer is not None:
            return self._writer.end(self.reported or as_reported(self.usage(estimated_prompt)))
        if not self._wants_usage:
            return self._ends + DONE
        if self._usage_chunk is None and self._choices > 1 and self._usage_in_passing is not None:
            # Each choice told its own, and what comes last is what a client takes for that of all.
            latest = self._latest
            whole: dict[str, Any] = {name: latest[name] for name in ("id", "created") if name in latest}
            whole |= {"object": self._form.chunk, "model": self._model, "choices": []}
            return self._ends + b"data: " + orjson.dumps({**whole, "usage": self._usage_in_passing}) + b"\n\n" + DONE
        return self._ends + self._usage_raw + DONE

    @property
    def reported(self) -> dict[str, Any] | None:
        """The usage object that the engine reported, if it did."""
        if self._usage_chunk is not None:
            usage: dict[str, Any] = self._usage_chunk["usage"]
            return usage
        return self._usage_in_passing

    def fold(self, estimated_prompt: int) -> bytes:
        """All of it as one answer, of a stream that keeps its chunks."""
        assert self.chunks is not None
        assert self._form.fold is not None, "else it does not come in chunks"
        used = self.reported
        if self._translation is not None:
            used = used or as_reported(self.usage(estimated_prompt))
        whole = self._form.fold(self.chunks, self._model, used)
        if self.mending is not None:
            whole = self.mending.mend(whole)
        if self._translation is not None:
            return orjson.dumps(self._translation.whole(whole))
        if self._form is CHAT:
            name_thoughts(whole["choices"], "message")
        return orjson.dumps(whole)

    def usage(self, estimated_prompt: int) -> Usage:
        """What the answer used so far."""
        if self._cut_usage is not None:
            return self._cut_usage
        known = read_usage(self.reported)
        if known is not None:
            return known
        source = UsageSource.COUNTED if self.counted else UsageSource.ESTIMATED
        if self.reading is not None and self.reading.prompt_tokens is not None:
            estimated_prompt = self.reading.prompt_tokens
        return Usage(prompt=estimated_prompt, completion=self.counted, source=source)

    def _take(self, event: Event) -> bytes:
        if self.is_done or self.error is not None:
            return b""
        if (told := self._repeated.told(event.raw)) is not None:
            self.counted += 1
            return told
        if event.data[:1] != b"{":
            mark = event.data.strip()
            if mark == b"[DONE]":
                self.is_done = self.has_begun
                if not self.has_begun:
                    self.error = StreamError("The engine ended its answer before it began.")
                return b""
            if mark == b"null":
                return b""  # llama.cpp begins so when it goes on with several prompts: it says nothing
        try:
            chunk = orjson.loads(event.data)
        except orjson.JSONDecodeError:
            chunk = None
        if not isinstance(chunk, dict):
            self.error = StreamError("The engine sent an event that is not a JSON object.")
            return b""
        failure = chunk.get("error")
        if failure or event.name == b"error":
            if isinstance(failure, dict):
                body = failure
            else:
                body = {"message": str(failure or chunk.get("message") or "no reason given")}
            self.error = StreamError(str(body.get("message", "no reason given")), body)
            return b""
        if self.reading is not None:
            out = b"".join([self._take_made(made) for made in self.reading.read(chunk)])
            self.is_done = self.reading.is_done
            return out
        if self.reword is not None:
            self.reword(chunk)
            data = orjson.dumps(chunk)
            event = Event(b"data: " + data + b"\n\n", data)
        return self._take_chunk(event, chunk)

    def _take_made(self, chunk: dict[str, Any]) -> bytes:
        if error := chunk.get("error"):
            self.error = StreamError(str(error.get("message")), error)
            return b""
        # Such engines send several tokens at once.
        data = orjson.dumps(chunk)
        return self._take_chunk(Event(b"data: " + data + b"\n\n", data), chunk, _estimated_tokens(chunk))

    def _take_chunk(self, event: Event, chunk: dict[str, Any], tokens: int = 1) -> bytes:
        choices = chunk.get("choices")
        usage = chunk.get("usage")
        if not choices:
            if isinstance(usage, dict):
                self._keep_usage(event, chunk)
                return b""
            if not self.has_begun:
                # Azure's, of what its filters found in the prompt. It is no answer yet, so that an error can still send
                # the request elsewhere.
                self._preface += self._named_as_asked(event, chunk)
                return b""
        self.has_begun = True
        self._latest = chunk
        ended = []
        for choice in choices or ():
            if self._form.has_text(choice):
                self.counted += tokens
            if why := choice.get("finish_reason"):
                self.ended_by[choice.get("index", 0)] = why
                self._open_choices.discard(choice.get("index", 0))
                ended.append(choice.get("index", 0))
        if usage is not None and isinstance(usage, dict):
            self._note_in_passing(usage, ended)
        if self.gathers is not None:
            self.gathers.take_choices(choices or ())
        if self.chunks is not None:
            self.chunks.append(chunk)
            return b""
        if self._writer is not None:
            return self._writer.write(chunk)
        if choices and self._form is CHAT and may_tell_thoughts(event.data) and name_thoughts(choices, "delta"):
            out = b"data: " + orjson.dumps({**chunk, "model": self._model}) + b"\n\n"
        else:
            out = self._named_as_asked(event, chunk)
        if choices and len(choices) == 1 and not ended and usage is None and self._passes:
            self._repeated.learn(event.raw, self._form.text_in(choices[0]), out)
        preface, self._preface = self._preface, b""
        if ended and self.gathers is not None:
            self._ends += out
            return preface
        return preface + out if preface else out

    @property
    def _passes(self) -> bool:
        """Nobody looks at its chunks, or changes them, but for the model's name."""
        return self.reading is None and self.reword is None and self.gathers is None

    def _note_in_passing(self, usage: dict[str, Any], ended: list[int]) -> None:
        """Beside a part of the answer. llama.cpp tells of each text, at its end, what that one used."""
        if len(ended) != 1:
            self._usage_of = None
        if self._usage_of is None:
            self._usage_in_passing = usage
            return
        self._usage_of[ended[0]] = usage
        known = [(index, read_usage(told)) for index, told in sorted(self._usage_of.items())]
        prompts = {index // self._samples: used.prompt for index, used in known if used is not None}
        if len(known) == 1 or not prompts:
            self._usage_in_passing = usage
            return
        prompt, completion = sum(prompts.values()), sum(used.completion for _, used in known if used is not None)
        whole = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        self._usage_in_passing = {**usage, **whole}

    def _keep_usage(self, event: Event, chunk: dict[str, Any]) -> None:
        """Usage chunks wait for the end: llama.cpp sends one for each choice, and a client expects one. Of a single choice
        each tells what was used so far, so the last one counts."""
        if self._usage_chunk is None or self._choices == 1:
            self._usage_chunk = chunk
            self._usage_raw = self._named_as_asked(event, chunk)
            return
        self._usage_chunk = {**chunk, "usage": _added(self._usage_chunk["usage"], chunk["usage"])}
        self._usage_raw = b"data: " + orjson.dumps({**self._usage_chunk, "model": self._model}) + b"\n\n"

    def _named_as_asked(self, event: Event, chunk: dict[str, Any]) -> bytes:
        # A text inside a JSON string cannot look like this: its quotes are escaped there.
        if self._named[0] in event.data or self._named[1] in event.data or "model" not in chunk:
            return event.raw
        return b"data: " + orjson.dumps({**chunk, "model": self._model}) + b"\n\n"


def read_usage(reported: Any) -> Usage | None:
    """OpenAI's usage object. None when it is not one, or says nothing."""
    if type(reported) is not dict:
        return None
    prompt, completion = reported.get("prompt_tokens"), reported.get("completion_tokens")
    details = reported.get("prompt_tokens_details")
    if details is None and type(prompt) is int and type(completion) is int and prompt >= 0 <= completion:
        return Usage(prompt, 0, completion, UsageSource.ENGINE)  # as nearly all of them are
    if prompt is None and completion is None:  # of what only reads, such as ranking, vLLM tells the total alone
        prompt = reported.get("total_tokens")
    if not _is_count(prompt) or not _is_count(completion if completion is not None else 0):
        return None
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Usage(
        prompt=int(prompt or 0),
        cached_prompt=min(int(cached), int(prompt or 0)) if cached and _is_count(cached) else 0,
        completion=int(completion or 0),
        source=UsageSource.ENGINE,
    )


def as_reported(used: Usage) -> dict[str, Any]:
    """OpenAI's usage object."""
    total = used.prompt + used.completion
    return {"prompt_tokens": used.prompt, "completion_tokens": used.completion, "total_tokens": total}


def _estimated_tokens(chunk: dict[str, Any]) -> int:
    """Of what a chat's chunk adds."""
    characters = 0
    for choice in chunk.get("choices") or ():
        delta = choice["delta"]
        characters += len(delta.get("content") or "") + len(delta.get("reasoning_content") or "")
        characters += sum(len(call["function"].get("arguments") or "") for call in delta.get("tool_calls") or ())
    return max(1, round(characters / _CHARACTERS_PER_TOKEN))


def _added(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Usage of two choices of one request: they share the prompt."""
    first, second = read_usage(one), read_usage(other)
    if first is None or second is None:
        return other if first is None else one
    completion = first.completion + second.completion
    return {**one, "completion_tokens": completion, "total_tokens": first.prompt + completion}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_whole(event: Event) -> bool:
    if event.data.strip() == b"[DONE]":
        return True
    try:
        orjson.loads(event.data)
    except orjson.JSONDecodeError:
        return False
    return True


def _json_text(text: str) -> str:
    return orjson.dumps(text).decode()
