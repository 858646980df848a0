"""What Anthropic is told when the client speaks its dialect too: the client's own words. Pure.

Nothing is translated there and back, so that signed thoughts, cache marks and whatever Anthropic learns next pass through:
only the model's name, whether to stream and what operators' rules say are set."""

from __future__ import annotations

from forebay_gateway.asked import Asked
from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.speech import Whole, dumped
from forebay_gateway.dialects.anthropic.native_stream import MessagesStream, read_counts, renamed
from forebay_gateway.dialects.anthropic.ruled import ruled_body
from forebay_gateway.engines.anthropic_speech import PATH, message_in
from forebay_gateway.rules.model_rules import Rule


class MessagesSpeech:
    comes_in_pieces = True
    passes_bytes = False
    path = streamed_path = PATH

    def __init__(self, asked: Asked, body: Json) -> None:
        self._asked, self.said = asked, body

    def body(self, *, streamed: bool, ask_usage: bool) -> bytes:
        return dumped({**self.said, "model": self._asked.model_at_engines, "stream": streamed})

    def obey(self, rule: Rule) -> None:
        self.said = ruled_body(self.said, rule)

    def stream(self, *, folds: bool, estimated_prompt: int) -> MessagesStream:
        return MessagesStream(self._asked.model, folds=folds)

    def whole(self, raw: bytes) -> Whole:
        told = message_in(raw)
        text_bytes = sum(len(str(block.get("text") or "").encode()) for block in told["content"])
        return Whole(renamed(raw, told, self._asked.model), read_counts(told.get("usage")), text_bytes)

    def forget_body(self) -> None:
        """It is not sent again."""
        self.said = {}
