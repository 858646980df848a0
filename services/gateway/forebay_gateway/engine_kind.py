"""The kinds of engines there are, and in what they differ for a gateway. Pure."""

from __future__ import annotations

from enum import StrEnum


class EngineKind(StrEnum):
    OPENAI = "openai"
    OLLAMA = "ollama"
    VLLM = "vllm"
    LLAMACPP = "llamacpp"
    SGLANG = "sglang"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"
    COHERE = "cohere"
    AZURE = "azure"
    OPENROUTER = "openrouter"

    cancels_plain_requests: bool
    """Whether closing the connection of a request that is not streamed stops the generation. llama.cpp's server looks at
    the connection only while it streams and generates to the end otherwise."""
    takes_tool_choice: bool
    """Whether a tool can be forced by `tool_choice`. Ollama leaves the field aside."""
    has_templates: bool
    """Whether what is said to it goes through a chat template, with whatever that may know."""
    takes_documents: bool
    """Whether its models may read PDFs. What speaks OpenAI's dialect is left to judge for itself."""
    has_own_wire: bool
    """A provider's, which is not OpenAI's."""

    def __init__(self, name: str) -> None:
        self.cancels_plain_requests = name != "llamacpp"
        self.takes_tool_choice = name != "ollama"
        self.has_templates = name in ("vllm", "sglang", "llamacpp")
        self.takes_documents = name in ("openai", "anthropic", "gemini", "azure", "openrouter")
        self.has_own_wire = name in ("anthropic", "gemini", "cohere")

    def tells_of(self, capability: str) -> bool:
        """Whether what such an engine does not say of a model, which it says something of, is not there."""
        return self in _TELLERS.get(capability, ())


_TELLERS = {
    # llama.cpp's server says what a model sees and hears, and not whether its template has tools; Gemini says neither.
    "tools": {EngineKind.OLLAMA, EngineKind.ANTHROPIC, EngineKind.COHERE, EngineKind.OPENROUTER},
    "vision": {
        EngineKind.OLLAMA,
        EngineKind.LLAMACPP,
        EngineKind.ANTHROPIC,
        EngineKind.COHERE,
        EngineKind.OPENROUTER,
    },
    "audio": {EngineKind.LLAMACPP},
}
