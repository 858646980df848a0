"""What a model thought, in chats of OpenAI's dialect, where it has two names. Pure.

llama.cpp, SGLang and older vLLM say `reasoning_content`, Ollama, newer vLLM and OpenRouter `reasoning`; most client
libraries look for one of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_NAMES = ("reasoning_content", "reasoning")


def may_tell_thoughts(raw: bytes) -> bool:
    """Names are looked for in the bytes, which is cheap; an escape might hide one."""
    return b"reasoning" in raw or b"\\" in raw


def name_thoughts(choices: Iterable[Any], said_in: str) -> bool:
    """Says thoughts by both names. `said_in`: `delta` or `message`; what is no object says nothing. False: there was nothing
    to change."""
    is_changed = False
    for choice in choices:
        said = choice.get(said_in) if isinstance(choice, dict) else None
        if not isinstance(said, dict) or ("reasoning" not in said and "reasoning_content" not in said):
            continue
        for name, other in (_NAMES, _NAMES[::-1]):
            if (thought := said.get(name)) and isinstance(thought, str) and said.get(other) is None:
                said[other] = thought
                is_changed = True
    return is_changed
