"""What is said to an engine for one request, and how its answer becomes the client's. Pure.

`OpenAISpeech` is for the engines that speak OpenAI's dialect, which is nearly all of them; an engine may have another that
its own clients' requests pass through in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple, Protocol

import orjson

from forebay_gateway.accounting import Usage
from forebay_gateway.canonical.answer_stream import AnswerStream, StreamError, read_usage
from forebay_gateway.canonical.dialect import Translation
from forebay_gateway.canonical.forms import CHAT, RERANK, Form
from forebay_gateway.canonical.repeated_chunk import RepeatedChunk
from forebay_gateway.canonical.structured import Answer, AskedBefore, Gathered, Mending, WantedForm, answers_in
from forebay_gateway.canonical.thoughts import may_tell_thoughts, name_thoughts
from forebay_gateway.canonical.upload import Upload
from forebay_gateway.refused import BadField


class Stream(Protocol):
    """A streamed answer on its way through: what the engine sends in, the client's bytes out, and what was learnt.
    After `is_done` or `error` nothing more is taken."""

    has_begun: bool
    """Something came that is part of an answer."""
    is_done: bool
    error: StreamError | None
    counted: int
    """Completion tokens, as far as pieces tell: one each."""
    ended_by: dict[int, Any]
    """Why each choice ended, in the engine's word, of those of which it is known."""
    gathers: Gathered | None
    """What was said, for who wants to judge it at the end; set before the first piece."""

    def feed(self, piece: bytes) -> bytes: ...

    @property
    def repeats(self) -> RepeatedChunk | None:
        """What the next pieces are likely to be. Whoever passes one by this instead of feeding it adds one to `counted`.
        None: they have to be fed."""
        ...

    def end(self) -> bytes:
        """The engine has ended the stream. Sets `is_done`, or `error` if the answer is not whole."""
        ...

    @property
    def can_be_cut(self) -> bool: ...

    @property
    def is_cut(self) -> bool: ...

    def cut(self, estimated_prompt: int) -> bytes:
        """Ends the answer here, as if it had reached its length."""
        ...

    def tail(self, estimated_prompt: int) -> bytes:
        """The last bytes of a whole answer."""
        ...

    def usage(self, estimated_prompt: int) -> Usage: ...

    def fold(self, estimated_prompt: int) -> bytes:
        """All of it as one answer, of a stream that was made to be folded."""
        ...


class Whole(NamedTuple):
    """An answer that came in one piece."""

    body: bytes
    """For the client."""
    usage: Usage | None
    """None: the engine reported none."""
    text_bytes: int
    """Of what was said; 0 where usage was reported."""
    answers: Sequence[Answer] = ()
    """What its choices say, before anything was mended; of a speech with a mending."""


class NoAnswer(Exception):
    """The engine's answer is not one."""

    def __init__(self, error: StreamError) -> None:
        super().__init__(error.message)
        self.error = error


class Speech(Protocol):
    path: str
    """At the engine."""
    streamed_path: str
    """The same for an answer that comes in pieces; most engines have one address for both."""
    comes_in_pieces: bool
    """Whether it may be asked for as a stream by a gateway whose client wants it whole."""
    passes_bytes: bool
    """The answer is not looked into; neither `stream` nor `whole` is called."""
    mending: Mending | None
    """What is done to a whole answer, or a folded one, which is going to be judged. None: it passes unjudged."""

    def body(self, *, streamed: bool, ask_usage: bool) -> bytes | Upload: ...

    def stream(self, *, folds: bool, estimated_prompt: int) -> Stream: ...

    def whole(self, raw: bytes) -> Whole:
        """Raises NoAnswer."""
        ...

    def again(self, said: str, remark: str, before: AskedBefore) -> Speech | None:
        """The same question once more, for one choice: after what was said to it and a remark about that. None: it has no
        words for this."""
        ...

    def in_words(self, wanted: WantedForm) -> Speech | None:
        """The same question, with the form of its answer told to the model and not demanded of the engine. None: it has no
        words for this."""
        ...

    def forget_body(self) -> None:
        """It is not sent again."""
        ...


class Unjudged:
    """Of a speech whose answers nobody judges."""

    mending: Mending | None = None

    def again(self, said: str, remark: str, before: AskedBefore) -> None:
        return None

    def in_words(self, wanted: WantedForm) -> None:
        return None


class Said(Protocol):
    """What OpenAI's speech needs to know of a request."""

    form: Form
    model: str
    model_at_engines: str
    arrived_at: int
    stream: bool
    choices: int
    samples: int
    include_usage: bool
    fields: Mapping[str, Any]
    raw: bytes
    upload: Upload | None
    translation: Translation | None
    continues: bool


def dumped(body: Mapping[str, Any]) -> bytes:
    """As JSON. Raises BadField."""
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError as error:  # orjson reads four times as deep as it writes
        raise BadField(f"The request is nested too deeply to be sent on: {error}.", code="invalid_json") from error


class OpenAISpeech:
    mending: Mending | None = None

    def __init__(self, asked: Said) -> None:
        self._asked = asked
        self.path = self.streamed_path = asked.form.path
        self.comes_in_pieces = asked.form.fold is not None
        self.passes_bytes = asked.form.passes_bytes

    def body(self, *, streamed: bool, ask_usage: bool) -> bytes | Upload:
        """A plain request to an engine that is asked plainly passes byte by byte."""
        asked = self._asked
        if asked.upload is not None:
            return asked.upload.with_text("model", asked.model_at_engines)
        fields = self._worded(asked.fields)
        if not streamed and asked.raw and asked.model == asked.model_at_engines and fields is asked.fields:
            return asked.raw
        body = {**fields, "model": asked.model_at_engines}
        if streamed:
            body["stream"] = True
            if ask_usage:
                # Of a client that streams nothing they mean nothing, and the engine must not be asked to judge them.
                options = (asked.fields.get("stream_options") or {}) if asked.stream else {}
                body["stream_options"] = {**options, "include_usage": True}
            elif not asked.stream:
                body.pop("stream_options", None)
        return dumped(body)

    def stream(self, *, folds: bool, estimated_prompt: int) -> AnswerStream:
        asked = self._asked
        stream = AnswerStream(
            asked.model,
            asked.choices,
            wants_usage=asked.include_usage or folds,
            keeps_chunks=folds,
            form=asked.form,
            samples=asked.samples,
            writer=None if folds or asked.translation is None else asked.translation.writer(estimated_prompt),
            translation=asked.translation,
        )
        stream.mending = self.mending
        return stream

    def whole(self, raw: bytes) -> Whole:
        asked = self._asked
        try:
            told = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise NoAnswer(StreamError("Its answer is not valid JSON.")) from error
        if asked.form is RERANK and isinstance(told, list):
            told = {"results": told}  # SGLang's ranking is the bare list
        if type(told) is not dict or type(told.get(asked.form.results)) is not list:
            error_body = told.get("error") if isinstance(told, dict) else None
            body = error_body if isinstance(error_body, dict) else None
            message = str((body or {}).get("message", f"Its answer has no `{asked.form.results}`."))
            raise NoAnswer(StreamError(message, body))
        usage = read_usage(told.get("usage"))
        text_bytes = 0
        if usage is None:
            text_bytes = sum(len(asked.form.text_of(result).encode()) for result in told[asked.form.results])
        mended = told if self.mending is None else self.mending.mend(told)
        if asked.translation is not None:
            raw = orjson.dumps(asked.translation.whole({**mended, "model": asked.model}))
        elif (
            (asked.form is CHAT and may_tell_thoughts(raw) and name_thoughts(mended["choices"], "message"))
            or mended is not told
            or told.get("model", asked.model) != asked.model
        ):
            raw = orjson.dumps({**mended, "model": asked.model})
        return Whole(raw, usage, text_bytes, answers_in(told) if self.mending else ())

    def again(self, said: str, remark: str, before: AskedBefore) -> OpenAISpeech | None:
        messages = self._asked.fields.get("messages")
        if self._asked.form is not CHAT or not isinstance(messages, list):
            return None
        turns = [{"role": "assistant", "content": said}, {"role": "user", "content": remark}]
        speech = self._with_fields({"messages": [*messages, *turns[not said.strip() :]], "n": 1})
        speech.mending = Mending(self.mending is not None and self.mending.unfences, before)
        return speech

    def in_words(self, wanted: WantedForm) -> OpenAISpeech | None:
        messages = self._asked.fields.get("messages")
        if self._asked.form is not CHAT or not isinstance(messages, list):
            return None
        first, *others = messages
        if first.get("role") == "system" and isinstance(first.get("content"), str):
            # Many templates know one system message, at the beginning.
            told = [{**first, "content": f"{first['content']}\n\n{wanted.in_words}"}, *others]
        else:
            told = [{"role": "system", "content": wanted.in_words}, *messages]
        speech = self._with_fields({"messages": told, "response_format": None})
        speech.mending = self.mending
        return speech

    def _with_fields(self, changed: Mapping[str, Any]) -> OpenAISpeech:
        """The same, but for these fields; those that are None are left out."""
        asked = copy(self._asked)
        fields = {**asked.fields, **changed}
        asked.fields = {name: value for name, value in fields.items() if name not in changed or value is not None}
        asked.raw = b""
        if changed.get("n") == 1:
            asked.choices = asked.samples = 1
        return self._for(asked)

    def _worded(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """In the engine's words: the same object when they are the same."""
        return fields

    def _for(self, asked: Said) -> OpenAISpeech:
        return type(self)(asked)

    def forget_body(self) -> None:
        """It is the request's, which forgets it."""
