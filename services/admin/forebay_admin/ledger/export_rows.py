"""Rows of the ledger as those of a file: flat, with the columns of the table. Pure."""

from __future__ import annotations

from forebay_admin.row_files import Column, Kind

COLUMNS: tuple[Column, ...] = (
    Column("started_at", Kind.MOMENT),
    *(Column(name, Kind.TEXT) for name in ("ledger_id", "request_id", "gateway")),
    Column("generation", Kind.WHOLE),
    *(Column(name, Kind.TEXT) for name in ("key_id", "user_id", "group_id", "pool", "model_requested", "model")),
    *(Column(name, Kind.TEXT) for name in ("backend_id", "dialect", "route")),
    Column("stream", Kind.YES_NO),
    Column("width", Kind.WHOLE),
    *(Column(name, Kind.TEXT) for name in ("outcome", "reason")),
    Column("http_status", Kind.COUNT),
    *(Column(name, Kind.WHOLE) for name in ("queue_ms", "ttft_ms", "duration_ms")),
    *(Column(name, Kind.WHOLE) for name in ("prompt_tokens", "cached_prompt_tokens", "completion_tokens")),
    Column("usage_source", Kind.TEXT),
    Column("attempts", Kind.COUNT),
    *(Column(name, Kind.WHOLE) for name in ("images", "audio_ms", "cost_micros", "price_version")),
    Column("unbilled", Kind.TEXT),
)
