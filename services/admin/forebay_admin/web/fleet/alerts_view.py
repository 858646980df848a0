"""Alerts, silences and webhooks as pages show them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from forebay.wire.v1 import alerts_pb2 as wire
from forebay_admin.json_form import word
from forebay_admin.web.fleet.states import tone

US = 1_000_000


@dataclass(frozen=True, slots=True)
class AlertRow:
    """Moments are unix seconds; None where there is none."""

    id: str
    severity: str
    tone: str
    rule: str
    subject: str
    subject_href: str
    """The page of what it is about; empty where there is none."""
    summary: str
    todo: str
    began_at: float
    opened_at: float
    closed_at: float | None
    closed_because: str
    acked_at: float | None
    acked_by: str
    ack_note: str
    silenced_until: float | None
    told_at: float | None

    @property
    def is_open(self) -> bool:
        return self.closed_at is None

    @property
    def is_pressing(self) -> bool:
        """Nobody has said that he knows, and nobody silenced it."""
        return self.is_open and self.acked_at is None and self.silenced_until is None


@dataclass(frozen=True, slots=True)
class SilenceRow:
    id: str
    subject: str
    rule: str
    ends_at: float
    added_by: str
    reason: str


@dataclass(frozen=True, slots=True)
class WebhookRow:
    name: str
    host: str
    delivered: int
    waiting: int
    given_up: int
    delivered_at: float | None
    failing_since: float | None
    last_error: str


@dataclass(frozen=True, slots=True)
class AlertsView:
    alerts: tuple[AlertRow, ...]
    silences: tuple[SilenceRow, ...]
    webhooks: tuple[WebhookRow, ...]


def alerts_view(told: wire.ListAlertsResponse) -> AlertsView:
    return AlertsView(
        alert_rows(told.alerts),
        tuple(SilenceRow(s.id, s.subject, s.rule, s.ends_at_us / US, s.added_by, s.reason) for s in told.silences),
        tuple(
            WebhookRow(
                hook.name,
                hook.host,
                hook.delivered,
                hook.waiting,
                hook.given_up,
                hook.delivered_at_us / US if hook.HasField("delivered_at_us") else None,
                hook.failing_since_us / US if hook.HasField("failing_since_us") else None,
                hook.last_error,
            )
            for hook in told.webhooks
        ),
    )


def alert_rows(alerts: Sequence[wire.Alert]) -> tuple[AlertRow, ...]:
    """In their order: open ones first, the gravest first."""
    return tuple(alert_row(alert) for alert in alerts)


def alert_row(alert: wire.Alert) -> AlertRow:
    severity = word(alert, "severity") or "unknown"
    return AlertRow(
        id=alert.id,
        severity=severity,
        tone=tone(severity),
        rule=alert.rule,
        subject=alert.subject,
        subject_href=subject_href(alert.subject),
        summary=alert.summary,
        todo=alert.todo,
        began_at=alert.began_at_us / US,
        opened_at=alert.opened_at_us / US,
        closed_at=alert.closed_at_us / US if alert.HasField("closed_at_us") else None,
        closed_because=alert.closed_because,
        acked_at=alert.acked_at_us / US if alert.HasField("acked_at_us") else None,
        acked_by=alert.acked_by,
        ack_note=alert.ack_note,
        silenced_until=alert.silenced_until_us / US if alert.HasField("silenced_until_us") else None,
        told_at=alert.notified_at_us / US if alert.HasField("notified_at_us") else None,
    )


def subject_href(subject: str) -> str:
    kind, _, rest = subject.partition("/")
    if not rest:
        return ""
    match kind:
        case "backend":
            return f"/console/backends/{quote(rest, safe='')}"
        case "node":
            return f"/console/nodes/{quote(rest, safe='')}"
        case "gpu" | "disk":
            return f"/console/nodes/{quote(rest.partition('/')[0], safe='')}"
        case "pool":
            return f"/console/backends?pool={quote(rest, safe='')}"
    return ""
