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
    SGLANG = "sglang"


class Prompts(StrEnum):
    """What /v1/completions goes on with, and what /v1/embeddings reads."""

    ONE_TEXT = "one text"
    TEXTS = "texts"
    """One or several."""
    TOKENS = "tokens"
    """One text or several, or as many lists of tokens."""
    MIXED = "mixed"
    """The same, and texts among tokens."""


class Logprobs(StrEnum):
    """How /v1/completions tells log probabilities that are asked for."""

    LISTS = "lists"
    """As OpenAI does: lists of tokens, of their log probabilities, of alternatives, of offsets."""
    AS_CHAT = "as chat"
    """A list of objects, as in a chat."""
    UNTOLD = "untold"


class Dimensions(StrEnum):
    """What becomes of `dimensions` in /v1/embeddings."""

    CUT = "cut"
    """The model's vectors can be cut (Matryoshka), and are."""
    REFUSED = "refused"
    """They cannot."""
    LEFT_ASIDE = "left aside"


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
    context_error: str = (
        "This model's maximum context length is {context} tokens, but the request has {longest} input tokens."
    )
    first_content: str | None = ""
    """`content` beside the role in a stream's first chunk."""
    reasoning_field: str = "reasoning_content"
    """Where OpenAI's chat tells thoughts. Ollama calls it `reasoning`, and so does newer vLLM."""
    stop_reason_field: str = ""
    """Where a choice that a stop string ended names it. Empty: nowhere."""
    ignores_tool_choice: bool = False
    """Whether to call a tool is left to the model."""
    refuses_forms: bool = False
    """`response_format` is 400, as with servers that have no grammars."""
    prompts: Prompts = Prompts.TOKENS
    inputs: Prompts = Prompts.TOKENS
    """Of /v1/embeddings."""
    begins_lists_with_null: bool = False
    """A stream that goes on with several prompts begins with the event `null`."""
    echoes: bool = True
    """`echo` brings the prompt back before the completion. Otherwise it is left aside without a word."""
    logprobs: Logprobs = Logprobs.LISTS
    most_logprobs: int | None = None
    """More alternatives to a completion's token are 400."""
    dimensions: Dimensions = Dimensions.CUT
    tells_nulls: bool = False
    """Of a message, a delta and a choice, fields that say nothing are there, and null."""
    flat_errors: bool = False
    """An error answer is `{"object": "error", "message": …, "type": …, "code": …}`, without `error` around it."""
    knows_developers: bool = True
    """The role `developer`. Many chat templates raise an error for it."""
    is_ollamas: bool = False
    """/v1 leaves aside what Ollama's does: `max_completion_tokens`, `chat_template_kwargs`, `best_of`. Whether to think is
    said by `reasoning_effort` alone."""
    samples_greedily: bool = True
    """Several answers at temperature 0, which are all the same. Otherwise they are 400."""
    takes_no_tokens: bool = True
    """`max_tokens` 0 makes one token all the same. Otherwise it is 400, except to get a prompt echoed and nothing more."""
    keepalive_s: float = 75.0
    """How long an idle connection stays open."""


TRAITS: dict[Flavour, Traits] = {
    Flavour.ANY: Traits(stop_reason_field="stop_reason"),
    Flavour.VLLM: Traits(
        stop_reason_field="stop_reason",
        knows_developers=False,
        most_logprobs=20,
        samples_greedily=False,
        takes_no_tokens=False,
        keepalive_s=5.0,
    ),
    Flavour.LLAMA_CPP: Traits(
        cancels_plain=False,
        cancels_waiting=False,
        usage_per_choice=True,
        completions_always_tell_usage=True,
        answers_any_model=True,
        context_error_type="exceed_context_size_error",
        first_content=None,
        knows_developers=False,
        prompts=Prompts.MIXED,
        inputs=Prompts.MIXED,
        begins_lists_with_null=True,
        echoes=False,
        logprobs=Logprobs.AS_CHAT,
        dimensions=Dimensions.LEFT_ASIDE,
        keepalive_s=5.0,
    ),
    Flavour.OLLAMA: Traits(
        ignores_tool_choice=True,
        ignores_n=True,
        knows_developers=False,
        is_ollamas=True,
        reasoning_field="reasoning",
        prompts=Prompts.ONE_TEXT,
        inputs=Prompts.TEXTS,
        echoes=False,
        logprobs=Logprobs.UNTOLD,
    ),
    Flavour.SGLANG: Traits(
        answers_any_model=True,
        knows_developers=False,
        stop_reason_field="matched_stop",
        context_error="The input ({longest} tokens) is longer than the model's context length ({context} tokens).",
        tells_nulls=True,
        flat_errors=True,
        takes_no_tokens=False,
        keepalive_s=5.0,
    ),
}
