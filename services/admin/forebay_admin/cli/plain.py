"""Answers as plain JSON values, the same way for every command, so that scripts can rely on it:

- names are those of the messages in proto/forebay/wire/v1;
- a time `created_at_us` becomes `created_at`, ISO 8601 in UTC;
- an enumeration is its word in lower case, null when it is not told: `healthy`, `no_driver`;
- what is unknown is null, and never left out."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from google.protobuf.message import Message

from forebay_admin.cli.words import moment

Plain = dict[str, Any]


def plain(message: Message) -> Plain:
    answer: Plain = {}
    for field in message.DESCRIPTOR.fields:
        name, value = field.name, _value(message, field)
        if name.endswith("_us"):
            name = name.removesuffix("_us")
            value = moment(value) if value else None
        answer[name] = value
    return answer


def word(message: Message, field: str) -> str | None:
    """The word of an enumeration's value, None when it is not told."""
    return _word(message.DESCRIPTOR.fields_by_name[field], getattr(message, field))


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


def _value(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.is_repeated:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return {name: value[name] for name in sorted(value)}  # ours hold plain values
        return [_single(field, item) for item in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _single(field, value)


def _single(field: Any, value: Any) -> Any:
    if isinstance(value, Message):
        return plain(value)
    if isinstance(value, bytes):
        return value.hex()
    if field.enum_type is not None:
        return _word(field, value)
    return value


def _word(field: Any, number: int) -> str | None:
    """`BACKEND_HEALTH_HEALTHY` → `healthy`: every value begins with the name of its enumeration, which the first one
    (…_UNSPECIFIED) gives away."""
    values = field.enum_type.values_by_number
    if number not in values:
        return str(number)
    prefix = values[0].name.removesuffix("UNSPECIFIED")
    name = values[number].name.removeprefix(prefix).lower()
    return None if name == "unspecified" else name
