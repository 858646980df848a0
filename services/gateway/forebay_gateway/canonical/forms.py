"""The forms that an answer has, by route: what its parts are called and how its pieces become a whole. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from forebay_gateway.canonical.folding import fold_chat, fold_completion
from forebay_gateway.canonical.prefix_hashes import chat_hashes, completion_hashes

Json = dict[str, Any]
_DELTA_TEXTS = ("reasoning_content", "reasoning", "tool_calls", "function_call", "refusal", "audio")
"""Beside `content`."""


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """One of those below, and equal to no other."""

    path: str
    """The same at the gateway and at its engines."""
    results: str
    """Where the answers are in a whole one, a list."""
    chunk: str
    """The `object` of a streamed piece."""
    unchanged: Mapping[str, Any]
    """Of a choice in a chunk that adds nothing to it."""
    text: str
    """The field of a chunk in which most of what is generated comes."""
    has_text: Callable[[Json], bool]
    """Whether a choice in a chunk has something that was generated."""
    text_in: Callable[[Json], Any]
    """What a choice in a chunk has in that field."""
    text_of: Callable[[Any], str]
    """Of one of the results of a whole answer."""
    fold: Callable[[Iterable[Json], str, Json | None], Json] | None
    """(chunks, model, usage) to a whole answer. None: it does not come in chunks."""
    prefix_hashes: Callable[[str, str, Mapping[str, Any]], tuple[int, ...]]
    """(model, tenant, body)."""
    passes_bytes: bool = False
    """An answer is not looked into: it may be sound, or subtitles."""
    generates: bool = False
    """A text, token by token."""


def _delta_has_text(choice: Json) -> bool:
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return False
    return bool(delta.get("content")) or any(delta.get(field) for field in _DELTA_TEXTS)


def _delta_text(choice: Json) -> Any:
    delta = choice.get("delta")
    return delta.get("content") if isinstance(delta, dict) else None


def _message_text(choice: Any) -> str:
    message = choice.get("message") if isinstance(choice, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""


def _plain_text(choice: Any) -> str:
    text = choice.get("text") if isinstance(choice, dict) else None
    return text if isinstance(text, str) else ""


CHAT = Form(
    path="/v1/chat/completions",
    results="choices",
    chunk="chat.completion.chunk",
    unchanged={"delta": {}},
    text="content",
    has_text=_delta_has_text,
    text_in=_delta_text,
    text_of=_message_text,
    fold=fold_chat,
    prefix_hashes=chat_hashes,
    generates=True,
)
COMPLETION = Form(
    path="/v1/completions",
    results="choices",
    chunk="text_completion",
    unchanged={"text": "", "logprobs": None},
    text="text",
    has_text=lambda choice: bool(choice.get("text")),
    text_in=lambda choice: choice.get("text"),
    text_of=_plain_text,
    fold=fold_completion,
    prefix_hashes=completion_hashes,
    generates=True,
)


def _batch(path: str, results: str, *, passes_bytes: bool = False) -> Form:
    """What is answered at once, about a few inputs, without a text that could come in pieces."""
    return Form(
        path=path,
        results=results,
        chunk="",
        unchanged={},
        text="",
        has_text=lambda choice: False,
        text_in=lambda choice: None,
        text_of=lambda result: "",
        fold=None,
        prefix_hashes=lambda model, tenant, fields: (),
        passes_bytes=passes_bytes,
    )


EMBEDDING = _batch("/v1/embeddings", "data")
RERANK = _batch("/v1/rerank", "results")
SCORE = _batch("/v1/score", "data")
MODERATION = _batch("/v1/moderations", "results")
IMAGE = _batch("/v1/images/generations", "data")
IMAGE_EDIT = _batch("/v1/images/edits", "data")
SPEECH = _batch("/v1/audio/speech", "", passes_bytes=True)
TRANSCRIPTION = _batch("/v1/audio/transcriptions", "", passes_bytes=True)
TRANSLATION = _batch("/v1/audio/translations", "", passes_bytes=True)
