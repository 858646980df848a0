"""How a request is said to engines of one's own that take OpenAI's dialect with words of theirs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forebay_gateway.canonical.speech import OpenAISpeech
from forebay_gateway.canonical.upload import Upload
from forebay_gateway.engines.local_words import in_ollamas_words, in_templates_words, unspoken_by_ollama


class TemplateSpeech(OpenAISpeech):
    """To what hands everything to a chat template: vLLM, SGLang, llama.cpp."""

    _reads_prefill = False
    """A last message of the model's is gone on with, unasked."""

    def _worded(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        asked = self._asked
        return in_templates_words(fields, asked.form, continues=asked.continues, reads_prefill=self._reads_prefill)


class OllamaSpeech(OpenAISpeech):
    def body(self, *, streamed: bool, ask_usage: bool) -> bytes | Upload:
        """Raises BadField for what its answer would leave out."""
        unspoken = unspoken_by_ollama(self._asked.fields, self._asked.form)
        if unspoken is not None:
            raise unspoken
        return super().body(streamed=streamed, ask_usage=ask_usage)

    def _worded(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        return in_ollamas_words(fields, self._asked.form)
