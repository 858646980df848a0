"""Answers as plain JSON values, the same way for every command: `json_form` says how. Rows of the ledger are flat, as its
table is."""

from __future__ import annotations

from uuid import UUID

from google.protobuf.message import Message

from forebay_admin.json_form import Plain as Plain
from forebay_admin.json_form import plain as plain
from forebay_admin.json_form import word as word


def usage_row(record: Message) -> Plain:
    """A row of the ledger, flat as the table is."""
    row = plain(record)
    usage = row.pop("usage") or {}
    row["ledger_id"] = str(UUID(hex=row["ledger_id"]))
    row["prompt_tokens"] = usage.get("prompt_tokens", 0)
    row["cached_prompt_tokens"] = usage.get("cached_prompt_tokens", 0)
    row["completion_tokens"] = usage.get("completion_tokens", 0)
    row["usage_source"] = usage.get("source")
    return row
