"""What goes wrong between an order and an engine, and whether trying again can help. Pure."""

from __future__ import annotations

import re

from forebay.errors import ForebayError, Refusal

_FOR_GOOD = re.compile(
    r"does not exist|not found|no space left|disk quota|invalid model name|unauthorized|access denied"
    r"|requires a newer version|unsupported|not support|incompatible",
    re.IGNORECASE,
)
"""In an engine's own words. Everything else (a registry that is away, a broken download) may pass."""
LONGEST_WORDS = 2000


class EngineTrouble(ForebayError):
    """The engine did not do what it was told."""

    reason = Refusal.ENGINE_FAILED

    def __init__(self, message: str, *, is_final: bool) -> None:
        # An engine's own words are in it: neither Postgres nor protobuf takes all that a text may hold.
        super().__init__("".join(letter for letter in message if letter.isprintable()))
        self.is_final = is_final
        """The same again would fail again."""


def said(backend: str, words: str, *, status: int | None = None) -> EngineTrouble:
    """An engine's own error, whole."""
    told = " ".join(words.split())[:LONGEST_WORDS] or f"status {status}"
    is_refusal = status is not None and 400 <= status < 500 and status not in (408, 425, 429)
    return EngineTrouble(f"{backend} says: {told}", is_final=is_refusal or bool(_FOR_GOOD.search(told)))
