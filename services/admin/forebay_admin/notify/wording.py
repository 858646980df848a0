"""An event as it is told: the JSON of webhooks, and the words of mails. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from forebay_admin.notify.kinds import SUMMARY

_LONGEST_SUBJECT = 150
_LONGEST_VALUE = 2000


@dataclass(frozen=True, slots=True)
class Event:
    id: str
    number: int
    """Later events have higher ones."""
    kind: str
    subject: str
    at: datetime
    body: Mapping[str, Any]
    user_name: str = ""
    """Whose own affair it is."""

    @property
    def summary(self) -> str:
        return str(self.body.get(SUMMARY) or f"{self.kind}: {self.subject}")


def body_of(event: Event) -> bytes:
    """As the Standard Webhooks specification lays bodies out: type, timestamp and data."""
    return json.dumps(
        {
            "type": event.kind,
            "timestamp": _moment(event.at),
            "data": {
                "event_id": event.id,
                "number": event.number,
                "subject": event.subject,
                "user": event.user_name or None,
                **{name: value for name, value in event.body.items() if name not in ("event_id", "number", "subject")},
            },
        },
        ensure_ascii=False,
    ).encode()


def mail_subject(event: Event) -> str:
    """One line, in which nothing is taken for an encoded word (RFC 2047): that could stand for the end of the line."""
    return f"[Forebay] {_one_line(event.summary)[:_LONGEST_SUBJECT].replace('=?', '= ?')}"


def mail_text(event: Event) -> str:
    lines = [_one_line(event.summary), "", f"When: {_moment(event.at)}", f"About: {_one_line(event.subject)}"]
    for name, value in event.body.items():
        if name != SUMMARY and value not in (None, ""):
            told = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            lines.append(f"{_one_line(name).replace('_', ' ').capitalize()}: {_one_line(told)[:_LONGEST_VALUE]}")
    return "\n".join([*lines, "", f"Event {event.id} ({event.kind}).", ""])


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text).strip()


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
