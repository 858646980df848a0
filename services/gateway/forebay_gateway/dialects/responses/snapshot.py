"""The `response` object: as it is announced, and as it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from forebay_gateway.canonical.dialect import Json

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why an answer is not whole, by what chat says of its finish."""


def is_cut(finish_reason: Any) -> bool:
    return finish_reason in _INCOMPLETE


@dataclass(slots=True)
class Snapshot:
    id: str
    model: str
    echo: Json
    created_at: float = 0
    """Seconds since the epoch, by the engine's clock; 0 when it tells none."""
    is_dated: bool = False
    """Before any engine was asked: its client knows the date already."""

    def queued(self) -> Json:
        return self._response("queued", [])

    def begun(self) -> Json:
        return self._response("in_progress", [])

    def ended(self, output: list[Json], finish_reason: Any, usage: Any) -> Json:
        """`finish_reason` and `usage`: chat's."""
        response = self._response("incomplete" if is_cut(finish_reason) else "completed", output)
        if is_cut(finish_reason):
            response["incomplete_details"] = {"reason": _INCOMPLETE[finish_reason]}
        response["usage"] = _usage(usage) if isinstance(usage, dict) else None
        return response

    def broken(self, output: list[Json], status: str, error: Json | None) -> Json:
        """One that did not come to its end. `status`: failed or cancelled."""
        return {**self._response(status, output), "error": error}

    def note_created(self, told: Json) -> None:
        """`told`: chat's answer, or a piece of one."""
        created = told.get("created")
        if isinstance(created, (int, float)) and not self.is_dated:
            self.created_at = created

    def _response(self, status: str, output: list[Json]) -> Json:
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": self.model,
            "output": output,
            "usage": None,
            **self.echo,
        }


def _usage(usage: Json) -> Json:
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": _count(usage.get("prompt_tokens_details"), "cached_tokens"),
            "cache_write_tokens": 0,  # OpenAI's clients want a number, and engines tell none
        },
        "output_tokens": completion,
        "output_tokens_details": {
            "reasoning_tokens": _count(usage.get("completion_tokens_details"), "reasoning_tokens"),
        },
        "total_tokens": _count(usage, "total_tokens") or prompt + completion,
    }


def _count(holder: Any, name: str) -> int:
    value = holder.get(name) if isinstance(holder, dict) else None
    return value if isinstance(value, int) else 0
