"""The fake engine's tokens of a prompt, as many as its usage counts. vLLM's shape and llama.cpp's two steps."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from tests.fakes.engine_messages import text_of
from tests.fakes.engine_orders import TOKENS_PER_MESSAGE, BadOrder, chat_tokens

VOCABULARY = 32_000

Body = Mapping[str, Any]
Json = dict[str, Any]


def tokenize_for_vllm(body: Body, *, max_model_len: int) -> Json:
    if "messages" in body:
        chat_tokens(body["messages"])  # checks their shape
        marks = list(range(TOKENS_PER_MESSAGE))
        tokens = [token for said in body["messages"] for token in (*marks, *_tokens(text_of(said.get("content"))))]
    elif isinstance(body.get("prompt"), str):
        tokens = _tokens(body["prompt"])
    else:
        raise BadOrder("'messages' or 'prompt' is required")
    return {"count": len(tokens), "max_model_len": max_model_len, "tokens": tokens}


def tokenize_for_llama_cpp(body: Body) -> Json:
    return {"tokens": _tokens(text_of(body.get("content")))}


def apply_template(body: Body) -> Json:
    messages = body.get("messages")
    chat_tokens(messages)
    return {"prompt": "\n".join(text_of(said.get("content")) for said in messages or ())}


def _tokens(text: str) -> list[int]:
    """One for each word, the same for the same word."""
    return [zlib.crc32(word.encode()) % VOCABULARY for word in text.split()]
