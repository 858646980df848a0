"""Alerts as messages, and as the JSON that webhooks are sent. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import orjson

from forebay.clock import micros
from forebay.wire.v1 import alerts_pb2 as wire
from forebay_registry.alerts.book import Alert, Event, Silence
from forebay_registry.alerts.rules import Severity


def to_alert(alert: Alert, silence: Silence | None = None) -> wire.Alert:
    return wire.Alert(
        id=alert.id,
        rule=alert.rule,
        subject=alert.subject,
        node=alert.node,
        severity=to_severity(alert.severity),
        summary=alert.summary,
        todo=alert.todo,
        began_at_us=micros(alert.began_at),
        opened_at_us=micros(alert.opened_at),
        closed_at_us=_micros(alert.closed_at),
        closed_because=alert.closed_because,
        acked_at_us=_micros(alert.acked_at),
        acked_by=alert.acked_by,
        ack_note=alert.ack_note,
        silenced_until_us=micros(silence.ends_at) if silence is not None else None,
        notified_at_us=_micros(alert.notified_at),
    )


def to_event(event: Event, silence: Silence | None = None) -> wire.AlertEvent:
    return wire.AlertEvent(
        id=event.id,
        kind=wire.AlertEventKind.Value(f"ALERT_EVENT_KIND_{event.kind.name}"),
        at_us=micros(event.at),
        alert=to_alert(event.alert, silence),
        quiet=event.is_quiet,
    )


def to_silence(silence: Silence) -> wire.AlertSilence:
    return wire.AlertSilence(
        id=silence.id,
        subject=silence.subject,
        rule=silence.rule,
        added_at_us=micros(silence.added_at),
        added_by=silence.added_by,
        ends_at_us=micros(silence.ends_at),
        reason=silence.reason,
    )


def to_severity(severity: Severity) -> wire.AlertSeverity.ValueType:
    return wire.AlertSeverity.Value(f"ALERT_SEVERITY_{severity.name}")


def to_severities(severities: Iterable[Severity]) -> list[wire.AlertSeverity.ValueType]:
    return [to_severity(severity) for severity in sorted(severities, key=lambda s: s.rank)]


def body_of(event: Event) -> bytes:
    """As the Standard Webhooks specification lays bodies out: type, timestamp and data."""
    alert = event.alert
    return orjson.dumps(
        {
            "type": f"alert.{event.kind}",
            "timestamp": _moment(event.at),
            "data": {
                "id": alert.id,
                "event_id": event.id,
                "rule": alert.rule,
                "subject": alert.subject,
                "node": alert.node or None,
                "severity": str(alert.severity),
                "summary": alert.summary,
                "todo": alert.todo,
                "began_at": _moment(alert.began_at),
                "opened_at": _moment(alert.opened_at),
                "closed_at": _moment(alert.closed_at) if alert.closed_at is not None else None,
                "closed_because": alert.closed_because or None,
            },
        }
    )


def _micros(seconds: float | None) -> int | None:
    return None if seconds is None else micros(seconds)


def _moment(seconds: float) -> str:
    """ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
