"""How many tokens a prompt has, guessed from its bytes with a ratio learnt from what engines report.

A guess only: it reserves and orders, and never decides that a prompt is too long."""

from __future__ import annotations

DEFAULT_BYTES_PER_TOKEN = 4.0
_WEIGHT = 0.05  # of a new sample: a hundred requests forget most of what was before
_LEAST, _MOST = 0.5, 64.0
_SMALLEST_SAMPLE = 64  # bytes; below it the chat template weighs more than the text


class TokenRatios:
    """Bytes per prompt token, by model. Only models that some backend has are ever learnt, which bounds the table."""

    def __init__(self) -> None:
        self._ratios: dict[str, float] = {}

    def estimate(self, model: str, prompt_bytes: int) -> int:
        """Tokens, at least 1."""
        return round(prompt_bytes / self._ratios.get(model, DEFAULT_BYTES_PER_TOKEN)) or 1

    def learn(self, model: str, prompt_bytes: int, prompt_tokens: int) -> None:
        if prompt_tokens <= 0 or prompt_bytes < _SMALLEST_SAMPLE:
            return
        seen = prompt_bytes / prompt_tokens
        if not _LEAST <= seen <= _MOST:
            seen = _LEAST if seen < _LEAST else _MOST
        known = self._ratios.get(model)
        self._ratios[model] = seen if known is None else known + _WEIGHT * (seen - known)
