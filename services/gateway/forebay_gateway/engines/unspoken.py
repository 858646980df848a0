"""What an engine has no words for: refused by name before anything is sent. Pure."""

from __future__ import annotations

from typing import Any, NoReturn

from forebay_gateway.canonical.speech import Unjudged
from forebay_gateway.refused import BadField


def beyond(engine: str, field: str, instead: str) -> BadField:
    """`instead`: what the engine would do, had it been asked."""
    return BadField(
        f"`{field}` is more than {engine} can do, which has this model: it {instead}. Leave it out, or ask for a model of "
        "another engine.",
        param=field,
        code="unsupported_parameter",
    )


def texts_to_embed(given: Any, provider: str, most: int) -> list[str]:
    """Raises BadField."""
    texts = [given] if isinstance(given, str) else given
    if not all(isinstance(text, str) for text in texts):
        raise BadField(f"`input` can only have texts with this model: {provider} takes no tokens.", param="input")
    if len(texts) > most:
        raise BadField(
            f"`input` has {len(texts)} texts; {provider} takes at most {most} in one request.",
            param="input",
            code="invalid_value",
        )
    return list(texts)


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
