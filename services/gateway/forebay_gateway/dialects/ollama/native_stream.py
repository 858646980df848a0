"""An Ollama engine's streamed answer on its way to a client that speaks Ollama too: lines in, the same lines out. Pure.

Two things are changed and nothing else: blank lines are dropped, since no client takes them, and the model has the name that
the client used. The line with `done` waits for `tail`, so that a request is settled before its client sees the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from forebay_gateway.accounting import Usage, UsageSource
from forebay_gateway.canonical.answer_stream import StreamError
from forebay_gateway.canonical.dialect import Json
from forebay_gateway.dialects.ollama.mended import answer_in, mended_answer
from forebay_gateway.dialects.ollama.parts import AnswerForm, Part, as_line, text_in, without_zeros
from forebay_gateway.dialects.passed_stream import PassedStream, RecordTooLong

LONGEST_LINE = 16 << 20
_TOO_LONG = f"longer than {LONGEST_LINE >> 20} MB"


class OllamaStream(PassedStream[bytes]):
    record = "a line"

    def __init__(self, model: str, form: AnswerForm, *, folds: bool) -> None:
        super().__init__(model, folds=folds)
        self._form = form
        self._lines = _Lines()
        self._latest: Json = {}
        self._final: Json = {}
        self._final_line = b""

    def split(self, piece: bytes) -> Iterator[bytes]:
        return self._lines.feed(piece)

    def rest(self) -> bytes | None:
        rest = self._lines.rest()
        return rest if _is_json(rest) else None

    def data_of(self, record: bytes) -> bytes:
        return record

    def close(self, used: Usage) -> None:
        said = {"model": self._model, "created_at": text_in(self._latest, "created_at"), **self._form.say(Part())}
        counts = without_zeros({"prompt_eval_count": used.prompt, "eval_count": used.completion})
        last = {**said, "done": True, "done_reason": "length", **counts}
        self._finish(last, as_line(last))

    def tail(self, estimated_prompt: int) -> bytes:
        return self._final_line

    def usage(self, estimated_prompt: int) -> Usage:
        if self._cut_usage is not None:
            return self._cut_usage
        source = UsageSource.COUNTED if self.counted else UsageSource.ESTIMATED
        return read_counts(self._final) or Usage(prompt=estimated_prompt, completion=self.counted, source=source)

    def fold(self, estimated_prompt: int) -> bytes:
        """As Ollama itself does for those who ask for no stream: joined up; of any other field the last value stands."""
        assert self._kept is not None, "it was not made to be folded"
        heard = [self._form.hear(told) for told in self._kept]
        part = Part(
            "".join(each.text for each in heard),
            "".join(each.thinking for each in heard),
            [call for each in heard for call in each.tool_calls],
        )
        whole: Json = {}
        for told in self._kept:
            whole |= told
        logprobs = [entry for told in self._kept for entry in _list(told.get("logprobs"))]
        whole |= {"model": self._model, **self._form.say(part)} | ({"logprobs": logprobs} if logprobs else {})
        return orjson.dumps(whole if self.mending is None else mended_answer(whole, self._form, self.mending))

    def take(self, told: Json, record: bytes) -> bytes:
        if told.get("error"):
            self.error = told_error(told["error"])
            return b""
        self.has_begun = True
        self._latest = told
        self.counted += any(self._form.hear(told))
        if self.gathers is not None:
            said = answer_in(told, self._form)
            self.gathers.take(0, said.text, is_other=not said.is_whole)
        out = b"" if self._kept is not None else renamed(record, told, self._model) + b"\n"
        if told.get("done") is True:
            self._finish(told, out)
            return b""
        if self._kept is not None:
            self._kept.append(told)
        return out

    def _finish(self, told: Json, line: bytes) -> None:
        self._final, self._final_line, self.ended_by = told, line, {0: told.get("done_reason")}
        self.is_done = True
        if self._kept is not None:
            self._kept.append(told)


class _Lines:
    """Lines out of bytes as they come, without their ends; blank ones are dropped."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Raises RecordTooLong at a line that is too long, whether its end has come or not."""
        *whole, rest = piece.split(b"\n")
        for more in whole:
            self._pending += more
            line = bytes(self._pending)
            self._pending.clear()
            if len(line) > LONGEST_LINE:
                raise RecordTooLong(_TOO_LONG)
            if line.strip():
                yield line.strip()
        self._pending += rest
        if len(self._pending) > LONGEST_LINE:
            raise RecordTooLong(_TOO_LONG)

    def rest(self) -> bytes:
        """What came after the last line's end."""
        return bytes(self._pending).strip()


def read_counts(told: Json) -> Usage | None:
    """Ollama leaves out what is zero, such as the count of a prompt that was cached. None when it counted nothing."""
    prompt, completion = (_count(told.get(name)) for name in ("prompt_eval_count", "eval_count"))
    if not prompt and not completion:
        return None
    return Usage(prompt=prompt, completion=completion, source=UsageSource.ENGINE)


def renamed(line: bytes, told: Json, model: str) -> bytes:
    """`line`, and what it says; the same with the model's name as the client has it."""
    if told.get("model", model) == model:
        return line
    name = orjson.dumps(model)
    begin = b'{"model":' + orjson.dumps(text_in(told, "model"))  # as Ollama begins each line: the rest stays as it is
    if line.startswith(begin):
        return b'{"model":' + name + line[len(begin) :]
    try:
        return orjson.dumps({**told, "model": model})
    except orjson.JSONEncodeError:  # deeper than can be written again
        return line


def told_error(told: Any) -> StreamError:
    """Ollama's `error` is a text; other servers that speak its dialect send an object."""
    if isinstance(told, dict):
        return StreamError(str(told.get("message") or "no reason given"), told)
    return StreamError(str(told))


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
