"""What Anthropic is told when the client speaks its dialect too: the client's own words. Pure.

Nothing is translated there and back, so that signed thoughts, cache marks and whatever Anthropic learns next pass through:
only the model's name, whether to stream and what operators' rules say are set."""

from __future__ import annotations

from forebay_gateway.asked import Asked
from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.speech import Whole, dumped
from forebay_gateway.canonical.structured import AskedBefore, Mending, WantedForm
from forebay_gateway.dialects.anthropic.mended import answer_in, mended_message
from forebay_gateway.dialects.anthropic.native_stream import MessagesStream, read_counts, renamed
from forebay_gateway.dialects.anthropic.ruled import ruled_body
from forebay_gateway.engines.anthropic_speech import PATH, message_in
from forebay_gateway.rules.model_rules import Rule

_COUNTED = (
    "cache_control",
    "context_management",
    "mcp_servers",
    "messages",
    "output_config",
    "output_format",
    "speed",
    "system",
    "thinking",
    "tool_choice",
    "tools",
)


def words_that_count(body: Json) -> Json:
    """Of a request, what Anthropic takes when it is asked how many tokens that has."""
    return {name: body[name] for name in _COUNTED if name in body}


class MessagesSpeech:
    comes_in_pieces = True
    passes_bytes = False
    path = streamed_path = PATH

    def __init__(self, asked: Asked, body: Json) -> None:
        self._asked, self.said = asked, body
        self.mending: Mending | None = None

    def body(self, *, streamed: bool, ask_usage: bool) -> bytes:
        return dumped({**self.said, "model": self._asked.model_at_engines, "stream": streamed})

    def obey(self, rule: Rule) -> None:
        self.said = ruled_body(self.said, rule)

    def stream(self, *, folds: bool, estimated_prompt: int) -> MessagesStream:
        stream = MessagesStream(self._asked.model, folds=folds)
        stream.mending = self.mending
        return stream

    def whole(self, raw: bytes) -> Whole:
        told = message_in(raw)
        text_bytes = sum(len(str(block.get("text") or "").encode()) for block in told["content"])
        if self.mending is None:
            return Whole(renamed(raw, told, self._asked.model), read_counts(told.get("usage")), text_bytes)
        mended = dumped({**mended_message(told, self.mending), "model": self._asked.model})
        return Whole(mended, read_counts(told.get("usage")), text_bytes, [answer_in(told)])

    def again(self, said: str, remark: str, before: AskedBefore) -> MessagesSpeech:
        turns = [{"role": "assistant", "content": said}, {"role": "user", "content": remark}]
        body = {**self.said, "messages": [*self.said["messages"], *turns[not said.strip() :]]}
        speech = MessagesSpeech(self._asked, body)
        speech.mending = Mending(self.mending is not None and self.mending.unfences, before)
        return speech

    def in_words(self, wanted: WantedForm) -> None:
        """Anthropic takes every form that its clients can ask for."""

    def forget_body(self) -> None:
        """It is not sent again."""
        self.said = {}
