"""For what a provider's wire has no words for: refused before anything is sent. Pure."""

from __future__ import annotations

from typing import NoReturn

from forebay_gateway.canonical.speech import Unjudged
from forebay_gateway.refused import BadField


class Unspoken(Unjudged):
    comes_in_pieces = False
    passes_bytes = False

    def __init__(self, path: str, provider: str) -> None:
        """`path`: at the gateway."""
        self.path = self.streamed_path = path
        self._provider = provider

    def body(self, *, streamed: bool, ask_usage: bool) -> NoReturn:
        raise BadField(
            f"This model is {self._provider}'s, whose API has nothing like {self.path}. Ask it through a chat, or ask for "
            "another model.",
            param="model",
            code="unsupported_model",
        )

    def stream(self, *, folds: bool, estimated_prompt: int) -> NoReturn:
        raise AssertionError("nothing was asked")

    def whole(self, raw: bytes) -> NoReturn:
        raise AssertionError("nothing was asked")

    def forget_body(self) -> None:
        """It has none."""
