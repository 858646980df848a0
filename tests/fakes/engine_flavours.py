"""Which engine the fake pretends to be, and where engines differ on the wire.

Every difference is a field of `Traits`, so that a test names the one it is about. The column for llama.cpp is held to the
real server by `tests/contract/test_engine_contract.py`; the others follow the engines' documentation and source.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Flavour(StrEnum):
    """What the fake answers to. `ANY` has every route at once and vLLM's manners."""

    ANY = "any"
    VLLM = "vllm"
    LLAMA_CPP = "llama.cpp"
    OLLAMA = "ollama"


@dataclass(frozen=True, slots=True)
class Traits:
    cancels_plain: bool = True
    """Closing a request that is not streamed frees its slots at once. llama.cpp b11549 generates to the end instead."""
    cancels_waiting: bool = True
    """Closing a request that waits takes it from the queue at once. llama.cpp notices when its turn comes."""
    usage_per_choice: bool = False
    """With several choices, usage counts one of them; streamed, each choice brings a usage chunk of its own."""
    completions_always_tell_usage: bool = False
    """Streamed /v1/completions carry usage in the chunk that ends a choice, asked for or not."""
    answers_any_model: bool = False
    """An unknown model name is answered by the model that is loaded, instead of 404."""
    ignores_n: bool = False
    """One choice, whatever `n` says."""
    context_error_type: str = "BadRequestError"
    first_content: str | None = ""
    """`content` beside the role in a stream's first chunk."""
    reasoning_field: str = "reasoning_content"
    """Where OpenAI's chat tells thoughts. Ollama calls it `reasoning`, and so does newer vLLM."""
    tells_stop_reason: bool = False
    """A choice that a stop string ended names it as `stop_reason`."""
    ignores_tool_choice: bool = False
    """Whether to call a tool is left to the model."""
    refuses_forms: bool = False
    """`response_format` is 400, as with servers that have no grammars."""
    keepalive_s: float = 75.0
    """How long an idle connection stays open."""


TRAITS: dict[Flavour, Traits] = {
    Flavour.ANY: Traits(tells_stop_reason=True),
    Flavour.VLLM: Traits(tells_stop_reason=True, keepalive_s=5.0),
    Flavour.LLAMA_CPP: Traits(
        cancels_plain=False,
        cancels_waiting=False,
        usage_per_choice=True,
        completions_always_tell_usage=True,
        answers_any_model=True,
        context_error_type="exceed_context_size_error",
        first_content=None,
        keepalive_s=5.0,
    ),
    Flavour.OLLAMA: Traits(ignores_tool_choice=True, ignores_n=True, reasoning_field="reasoning"),
}
