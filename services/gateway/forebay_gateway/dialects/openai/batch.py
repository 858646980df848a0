"""OpenAI's batches: what a request for one says, and how one is told. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.fields import parse_object, wrong_type
from forebay_gateway.canonical.typed import bad_value, demand_string, metadata_in, object_in

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/moderations")

_WINDOW = "24h"
_SHORTEST_S, _LONGEST_S = 3600, 2_592_000
_MOMENTS = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


@dataclass(frozen=True, slots=True)
class BatchWish:
    input_file_id: str
    endpoint: str
    metadata: Mapping[str, str]
    output_expires_s: int | None
    """None: as usual."""


@dataclass(frozen=True, slots=True)
class KeptBatch:
    """Moments are in seconds since the epoch."""

    id: str
    endpoint: str
    input_file_id: str
    status: str
    created_at: int
    expires_at: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    entered_at: Mapping[str, int] = field(default_factory=dict)
    """By status."""
    errors: Sequence[Json] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0


def parse_batch(raw: bytes) -> BatchWish:
    """Raises BadField."""
    body = parse_object(raw, "`input_file_id`, `endpoint` and `completion_window`")
    input_file_id = demand_string(body, "input_file_id", "", "it names a file that was uploaded with the purpose batch")
    endpoint = demand_string(body, "endpoint", "", f"it can be {_either(ENDPOINTS)}")
    if endpoint not in ENDPOINTS:
        raise bad_value("endpoint", f"`endpoint` is {endpoint[:80]!r}; it can be {_either(ENDPOINTS)}.")
    window = demand_string(body, "completion_window", "", f"it must be {_WINDOW}")
    if window != _WINDOW:
        raise bad_value("completion_window", f"`completion_window` is {window[:40]!r}; it must be {_WINDOW}.")
    return BatchWish(input_file_id, endpoint, metadata_in(body), _output_expires_s(body))


def tell_batch(batch: KeptBatch) -> Json:
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": list(batch.errors)} if batch.errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": _WINDOW,
        "status": batch.status,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": batch.created_at,
        "expires_at": batch.expires_at,
        **{f"{status}_at": batch.entered_at.get(status) for status in _MOMENTS},
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "metadata": dict(batch.metadata) or None,
    }


def _output_expires_s(body: Json) -> int | None:
    told = object_in(body, "output_expires_after")
    if told is None:
        return None
    if told.get("anchor") != "created_at":
        raise bad_value("output_expires_after.anchor", "`output_expires_after.anchor` must be created_at.")
    seconds: Any = told.get("seconds")
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise wrong_type("output_expires_after.seconds", "a whole number", seconds)
    if not _SHORTEST_S <= seconds <= _LONGEST_S:
        raise bad_value(
            "output_expires_after.seconds",
            f"`output_expires_after.seconds` must be from {_SHORTEST_S} to {_LONGEST_S}.",
        )
    return seconds


def _either(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
