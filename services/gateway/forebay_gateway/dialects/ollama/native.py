"""What an Ollama engine is told when the client speaks Ollama too: the client's own words. Pure.

Nothing is translated there and back, so whatever Ollama learns next passes through: only the model's name, whether to
stream and what operators' rules say are set."""

from __future__ import annotations

from typing import Any, NoReturn

import orjson

from forebay_gateway.asked import Asked
from forebay_gateway.canonical.answer_stream import StreamError
from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.speech import NoAnswer, OpenAISpeech, Unjudged, Whole, dumped
from forebay_gateway.canonical.structured import AskedBefore, Mending, WantedForm
from forebay_gateway.dialects.ollama.mended import answer_in, mended_answer
from forebay_gateway.dialects.ollama.native_stream import OllamaStream, read_counts, renamed, told_error
from forebay_gateway.dialects.ollama.parts import AnswerForm
from forebay_gateway.dialects.ollama.ruled import ruled_body
from forebay_gateway.refused import BadField
from forebay_gateway.rules.model_rules import Rule


class OllamaSpeech:
    """`/api/chat` and `/api/generate`."""

    comes_in_pieces = True
    passes_bytes = False

    def __init__(self, asked: Asked, form: AnswerForm, body: Json) -> None:
        self._asked, self._form, self.said = asked, form, body
        self.mending: Mending | None = None
        self.path = self.streamed_path = form.path

    def body(self, *, streamed: bool, ask_usage: bool) -> bytes:
        return native_body(self.said, self._asked.model_at_engines, streamed)

    def obey(self, rule: Rule) -> None:
        self.said = ruled_body(self.said, rule, generates=True)

    def stream(self, *, folds: bool, estimated_prompt: int) -> OllamaStream:
        stream = OllamaStream(self._asked.model, self._form, folds=folds)
        stream.mending = self.mending
        return stream

    def whole(self, raw: bytes) -> Whole:
        told = _answer_in(raw)
        if not self._form.is_answer(told):
            raise NoAnswer(StreamError("Its answer has no text."))
        heard = self._form.hear(told)
        text_bytes = len(heard.text.encode()) + len(heard.thinking.encode())
        if self.mending is None:
            return Whole(renamed(raw, told, self._asked.model), read_counts(told), text_bytes)
        mended = dumped({**mended_answer(told, self._form, self.mending), "model": self._asked.model})
        return Whole(mended, read_counts(told), text_bytes, [answer_in(told, self._form)])

    def again(self, said: str, remark: str, before: AskedBefore) -> OllamaSpeech:
        if self._form.in_message:
            turns = [{"role": "assistant", "content": said}, {"role": "user", "content": remark}]
            body = {**self.said, "messages": [*self.said["messages"], *turns[not said.strip() :]]}
        else:
            body = {**self.said, "prompt": f"{self.said['prompt']}\n\nYou answered:\n{said}\n\n{remark}"}
        speech = OllamaSpeech(self._asked, self._form, body)
        speech.mending = Mending(self.mending is not None and self.mending.unfences, before)
        return speech

    def in_words(self, wanted: WantedForm) -> None:
        """Ollama takes every form."""

    def forget_body(self) -> None:
        """It is not sent again."""
        self.said = {}


class OllamaEmbeddingSpeech(Unjudged):
    """`/api/embed` and `/api/embeddings`."""

    comes_in_pieces = False
    passes_bytes = False

    def __init__(self, asked: Asked, path: str, results: str, body: Json) -> None:
        """`results`: the name of the field with the vectors."""
        self._asked, self._results, self.said = asked, results, body
        self.path = self.streamed_path = path

    def body(self, *, streamed: bool, ask_usage: bool) -> bytes:
        return native_body(self.said, self._asked.model_at_engines, None)

    def obey(self, rule: Rule) -> None:
        self.said = ruled_body(self.said, rule, generates=False)

    def stream(self, *, folds: bool, estimated_prompt: int) -> NoReturn:
        raise AssertionError("embeddings are not streamed")

    def whole(self, raw: bytes) -> Whole:
        told = _answer_in(raw)
        if not isinstance(told.get(self._results), list):
            raise NoAnswer(StreamError(f"Its answer has no `{self._results}`."))
        return Whole(renamed(raw, told, self._asked.model), read_counts(told), 0)

    def forget_body(self) -> None:
        """It is not sent again."""
        self.said = {}


class UnscaledEmbeddingSpeech(OpenAISpeech):
    """For llama.cpp, which brings vectors to length one unless it is told not to. Ollama's older address never did."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self.said: Json = {}

    def body(self, *, streamed: bool, ask_usage: bool) -> bytes:
        return dumped({**self._asked.fields, "model": self._asked.model_at_engines, "embd_normalize": -1})

    def obey(self, rule: Rule) -> None:
        """It says what the request does."""


class NothingToSay(Unjudged):
    """For the engines that cannot do what was asked, which only Ollama can."""

    comes_in_pieces = False
    passes_bytes = False

    def __init__(self, path: str, param: str, why: str) -> None:
        self.path = self.streamed_path = path
        self.said: Json = {}
        self._param, self._why = param, why

    def body(self, *, streamed: bool, ask_usage: bool) -> NoReturn:
        raise BadField(self._why, param=self._param, code="unsupported_parameter")

    def obey(self, rule: Rule) -> None:
        """Nothing is said."""

    def stream(self, *, folds: bool, estimated_prompt: int) -> NoReturn:
        raise AssertionError("nothing was asked")

    def whole(self, raw: bytes) -> NoReturn:
        raise AssertionError("nothing was asked")

    def forget_body(self) -> None:
        """It has none."""


def native_body(body: Json, model_at_engines: str, streamed: bool | None) -> bytes:
    """`streamed`: None where there is no such field. Raises BadField."""
    told: dict[str, Any] = {**body, "model": model_at_engines}
    told.pop("name", None)  # clients may call the model so; Ollama itself looks at `model` alone
    if streamed is not None:
        told["stream"] = streamed
    return dumped(told)


def _answer_in(raw: bytes) -> Json:
    """Raises NoAnswer."""
    try:
        told = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise NoAnswer(StreamError("Its answer is not valid JSON.")) from error
    if not isinstance(told, dict):
        raise NoAnswer(StreamError("Its answer is not a JSON object."))
    if told.get("error"):
        raise NoAnswer(told_error(told["error"]))
    return told
