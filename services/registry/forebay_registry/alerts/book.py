"""The alerts that are open, and what is to be told of them. Pure: findings, orders and two times go in (`now` on a clock
that never goes back, for how long something has held; `today` in seconds since the epoch, for records), events come out.

One is open at most for each rule and subject. Who is silenced or under maintenance is told of nothing new; what is told once
is told to its end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase

from forebay.errors import BadInput
from forebay_registry.alerts.findings import Finding, Key, Seen
from forebay_registry.alerts.rules import AlertSettings, Rule, Severity

MOST_TEXT = 200
MOST_SILENCES = 1000
LONGEST_SILENCE_S = 366 * 86_400
_MOST_SUBJECT = 300


class Kind(StrEnum):
    OPENED = "opened"
    GRAVER = "graver"
    REPEATED = "repeated"
    CLOSED = "closed"
    ACKED = "acked"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Alert:
    id: str
    rule: str
    """A word; one of another version is possible."""
    subject: str
    node: str
    severity: Severity
    summary: str
    todo: str
    began_at: float
    opened_at: float
    closed_at: float | None = None
    closed_because: str = ""
    acked_at: float | None = None
    acked_by: str = ""
    ack_note: str = ""
    notified_at: float | None = None
    """When webhooks were last told of it."""
    events: int = 0
    """So far: each has its number."""

    @property
    def key(self) -> Key:
        return self.rule, self.subject


@dataclass(frozen=True, slots=True)
class Event:
    kind: Kind
    at: float
    alert: Alert
    """After it."""
    is_quiet: bool = False

    @property
    def id(self) -> str:
        return f"{self.alert.id}.{self.alert.events}"


@dataclass(frozen=True, slots=True)
class Silence:
    id: str
    subject: str
    rule: str
    """Empty: all."""
    added_at: float
    added_by: str
    ends_at: float
    reason: str = ""

    def covers(self, alert: Alert | Finding, today: float) -> bool:
        if today >= self.ends_at or (self.rule and self.rule != alert.rule):
            return False
        return fnmatchcase(alert.subject, self.subject) or (
            bool(alert.node) and fnmatchcase(f"node/{alert.node}", self.subject)
        )


def demand_silence(subject: str, rule: str, for_s: int, reason: str, known: int) -> None:
    """Raises BadInput."""
    if not subject or len(subject) > _MOST_SUBJECT or not subject.isprintable():
        raise BadInput(
            "Name a subject, such as backend/NAME, node/NAME, gpu/NODE/0, pool/NAME, registry, or a pattern with *."
        )
    if rule and rule not in set(Rule):
        raise BadInput(f"There is no rule {rule[:80]!r}; there are {', '.join(Rule)}.")
    if not 0 < for_s <= LONGEST_SILENCE_S:
        raise BadInput("A silence lasts for a second at least, and for a year at most.")
    demand_text(reason)
    if known >= MOST_SILENCES:
        raise BadInput(f"There are {known} silences; end some first.")


def demand_text(text: str) -> None:
    """Raises BadInput."""
    if len(text) > MOST_TEXT or not text.isprintable():
        raise BadInput(f"A note is one line of at most {MOST_TEXT} characters.")


class Book:
    def __init__(self, settings: AlertSettings, new_id: Callable[[], str]) -> None:
        self._settings = settings
        self._new_id = new_id
        self.open: dict[Key, Alert] = {}
        self.silences: dict[tuple[str, str], Silence] = {}
        """By subject and rule."""
        self._pending: dict[Key, tuple[float, float]] = {}
        """Since when it has held, on both clocks."""
        self._clearing: dict[Key, float] = {}
        """Since when what is open does not hold any more."""

    @property
    def holding(self) -> Collection[Key]:
        """What held when it was last looked at."""
        return self._pending.keys() | self.open.keys()

    def judge(self, seen: Seen, now: float, today: float) -> list[Event]:
        events: list[Event] = []
        for key, finding in seen.findings.items():
            self._clearing.pop(key, None)
            alert = self.open.get(key)
            is_calm = seen.is_calm(finding.subject, finding.node)
            if alert is not None:
                events += self._go_on(alert, finding, today, is_calm=is_calm)
            elif not is_calm:
                events += self._may_open(finding, now, today)
        for key in self._pending.keys() - seen.findings.keys():
            del self._pending[key]
        for key in self.open.keys() - seen.findings.keys():
            events += self._may_close(self.open[key], seen, now, today)
        return events

    def adopt(self, alerts: Iterable[Alert], silences: Iterable[Silence], today: float) -> list[Event]:
        """What was stored. Of what is open here already, under another name, the stored one ends."""
        self.silences = {(s.subject, s.rule): s for s in silences} | self.silences
        events = []
        for stored in alerts:
            ours = self.open.get(stored.key)
            if ours is None:
                self.open[stored.key] = stored
            elif ours.id != stored.id:
                events.append(self._closed(stored, f"It goes on as {ours.id}.", today))
        return events

    def ack(self, alert_id: str, actor: str, note: str, today: float) -> Event | None:
        """None: it is not open."""
        alert = next((a for a in self.open.values() if a.id == alert_id), None)
        if alert is None:
            return None
        return self._told(
            replace(alert, acked_at=today, acked_by=actor, ack_note=note), Kind.ACKED, today, is_quiet=True
        )

    def silence_of(self, alert: Alert | Finding, today: float) -> Silence | None:
        """The one that lasts longest."""
        covering = [s for s in self.silences.values() if s.covers(alert, today)]
        return max(covering, key=lambda s: s.ends_at, default=None)

    def forget_silences(self, today: float) -> list[Silence]:
        """Those that are over."""
        over = [s for s in self.silences.values() if today >= s.ends_at]
        for silence in over:
            del self.silences[silence.subject, silence.rule]
        return over

    # --- inside -----------------------------------------------------------------------------------------------------

    def _may_open(self, finding: Finding, now: float, today: float) -> list[Event]:
        since, began_at = self._pending.setdefault(finding.key, (now, today))
        if now - since < self._settings.terms[finding.rule].for_s:
            return []
        del self._pending[finding.key]
        is_silenced = self.silence_of(finding, today) is not None
        alert = Alert(
            id=self._new_id(),
            rule=finding.rule,
            subject=finding.subject,
            node=finding.node,
            severity=finding.severity,
            summary=finding.summary,
            todo=finding.todo,
            began_at=min(began_at, today),
            opened_at=today,
            notified_at=None if is_silenced else today,
        )
        return [self._told(alert, Kind.OPENED, today, is_quiet=is_silenced)]

    def _go_on(self, alert: Alert, finding: Finding, today: float, *, is_calm: bool) -> list[Event]:
        before = alert
        is_graver = finding.severity.rank > alert.severity.rank
        alert = self.open[alert.key] = replace(alert, summary=finding.summary, todo=finding.todo)
        is_silenced = self.silence_of(alert, today) is not None
        may_tell = not is_silenced and not is_calm
        if is_graver:
            # Who said that he knows, knew of less.
            alert = replace(alert, severity=finding.severity, acked_at=None, acked_by="", ack_note="")
            alert = replace(alert, notified_at=today) if may_tell else alert
            return [self._told(alert, Kind.GRAVER, today, is_quiet=not may_tell)]
        if not may_tell or alert.acked_at is not None:
            return []
        if before.notified_at is None:  # it opened in silence, and that is over
            return [self._told(replace(alert, notified_at=today), Kind.OPENED, today)]
        if today - before.notified_at >= self._settings.repeat_s:
            return [self._told(replace(alert, notified_at=today), Kind.REPEATED, today)]
        return []

    def _may_close(self, alert: Alert, seen: Seen, now: float, today: float) -> list[Event]:
        terms = self._settings.terms.get(Rule(alert.rule)) if alert.rule in set(Rule) else None
        if terms is None or not terms.is_on:
            return [self._closed(alert, "Its rule is switched off.", today)]
        if seen.is_blind_to(alert.rule, alert.subject, alert.node):
            self._clearing.pop(alert.key, None)
            return []
        if now - self._clearing.setdefault(alert.key, now) < terms.clear_s:
            return []
        return [self._closed(alert, "It does not hold any more.", today)]

    def _closed(self, alert: Alert, why: str, today: float) -> Event:
        closed = replace(alert, closed_at=today, closed_because=why, events=alert.events + 1)
        if (ours := self.open.get(alert.key)) is not None and ours.id == alert.id:
            del self.open[alert.key]
            self._clearing.pop(alert.key, None)
        return Event(Kind.CLOSED, today, closed, is_quiet=alert.notified_at is None)

    def _told(self, alert: Alert, kind: Kind, today: float, *, is_quiet: bool = False) -> Event:
        alert = self.open[alert.key] = replace(alert, events=alert.events + 1)
        return Event(kind, today, alert, is_quiet=is_quiet)
