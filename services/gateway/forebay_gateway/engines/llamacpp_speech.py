"""What llama.cpp's server does otherwise than OpenAI, and does not say. Pure.

It leaves aside what it does not do, and tells the log probabilities of a completion as those of a chat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from forebay_gateway.canonical.answer_stream import AnswerStream
from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.forms import COMPLETION, EMBEDDING, Form
from forebay_gateway.canonical.speech import Said, Whole
from forebay_gateway.canonical.upload import Upload
from forebay_gateway.engines.local_speech import TemplateSpeech
from forebay_gateway.engines.unspoken import beyond
from forebay_gateway.refused import BadField


class LlamaCppSpeech(TemplateSpeech):
    _reads_prefill = True

    def __init__(self, asked: Said) -> None:
        super().__init__(asked)
        self._tells_logprobs = asked.form is COMPLETION and bool(asked.fields.get("logprobs"))

    def body(self, *, streamed: bool, ask_usage: bool) -> bytes | Upload:
        """Raises BadField for what its answer would leave out."""
        unspoken = unspoken_by_llamacpp(self._asked.fields, self._asked.form)
        if unspoken is not None:
            raise unspoken
        return super().body(streamed=streamed, ask_usage=ask_usage)

    def stream(self, *, folds: bool, estimated_prompt: int) -> AnswerStream:
        stream = super().stream(folds=folds, estimated_prompt=estimated_prompt)
        if self._tells_logprobs:
            stream.reword = _Offsets().reword
        return stream

    def whole(self, raw: bytes) -> Whole:
        if not self._tells_logprobs:
            return super().whole(raw)
        try:
            told = orjson.loads(raw)
            _Offsets().reword(told)
        except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
            return super().whole(raw)  # which says what is wrong with it
        return super().whole(orjson.dumps(told))

    def _for(self, asked: Said) -> LlamaCppSpeech:
        return LlamaCppSpeech(asked)


def unspoken_by_llamacpp(fields: Mapping[str, Any], form: Form) -> BadField | None:
    """For what it would leave out, and answer something else than what was asked."""
    if form is EMBEDDING and fields.get("dimensions") is not None:
        return beyond("llama.cpp's server", "dimensions", "gives vectors as long as the model makes them")
    if form is not COMPLETION:
        return None
    if fields.get("echo"):
        return beyond("llama.cpp's server", "echo", "does not repeat the prompt")
    if fields.get("suffix"):
        return beyond("llama.cpp's server", "suffix", "fills no gaps here")
    if (fields.get("best_of") or 1) > (fields.get("n") or 1):
        return beyond("llama.cpp's server", "best_of", "gives every answer that it makes")
    return None


class _Offsets:
    """Of one answer: how far each of its texts has come."""

    def __init__(self) -> None:
        self._told: dict[int, int] = {}

    def reword(self, piece: Json) -> None:
        """A piece of a completion, or a whole one, in place."""
        for choice in piece.get("choices") or ():
            given = choice.get("logprobs")
            tokens = given.get("content") if isinstance(given, dict) else None
            if isinstance(tokens, list):
                choice["logprobs"] = self._lists(choice.get("index", 0), tokens)

    def _lists(self, index: int, tokens: list[Json]) -> Json:
        offsets = []
        for token in tokens:
            offsets.append(self._told.setdefault(index, 0))
            self._told[index] += len(token["token"])
        return {
            "text_offset": offsets,
            "token_logprobs": [token["logprob"] for token in tokens],
            "tokens": [token["token"] for token in tokens],
            "top_logprobs": [
                {likely["token"]: likely["logprob"] for likely in token["top_logprobs"]} for token in tokens
            ],
        }
