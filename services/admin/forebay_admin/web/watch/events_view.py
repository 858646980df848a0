"""Events, who is told of them, and what became of each message, as the console shows them. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forebay.wire.v1 import notifications_pb2
from forebay_admin.web.forms import Form, WrongField
from forebay_admin.web.paging import address, step
from forebay_admin.web.watch.spans import unix

PATH, SUBSCRIPTIONS = "/console/events", "/console/events/subscriptions"
AT_ONCE = 50
STATES = ("waiting", "delivered", "dead")
CHANNELS = ("webhook", "mail")
_TONES = {"waiting": "warn", "delivered": "good", "dead": "bad"}


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    subscription_id: str
    channel: str
    address: str
    state: str
    tone: str
    attempts: int
    due_at: float | None
    ended_at: float | None
    said: str


@dataclass(frozen=True, slots=True)
class EventRow:
    id: str
    path: str
    kind: str
    subject: str
    summary: str
    at: float | None
    user: str
    body: str
    """JSON, laid out."""
    deliveries: Sequence[DeliveryRow]

    @property
    def tallies(self) -> Sequence[tuple[str, int]]:
        """How many deliveries are in each state, of those that any is in."""
        counted = ((state, sum(one.state == state for one in self.deliveries)) for state in STATES)
        return [(state, number) for state, number in counted if number]

    @property
    def has_dead(self) -> bool:
        return any(one.state == "dead" for one in self.deliveries)


@dataclass(frozen=True, slots=True)
class EventsView:
    rows: Sequence[EventRow]
    next_href: str
    first_href: str


@dataclass(frozen=True, slots=True)
class SubscriptionRow:
    id: str
    path: str
    channel: str
    address: str
    kinds: Sequence[str]
    user: str
    by: str
    added_at: float | None
    delivered: int
    delivered_at: float | None
    waiting: int
    dead: int
    failing_since: float | None
    last_error: str


def asked_for(query: Form) -> notifications_pb2.ListEventsRequest:
    """Raises WrongField."""
    state = query.get("state")
    if state and state not in STATES:
        raise WrongField("state", f"Messages are {', '.join(STATES)}.")
    return notifications_pb2.ListEventsRequest(
        kind=query.get("kind"), state=state, limit=AT_ONCE, before=query.whole("before", 0)
    )


def events_view(told: notifications_pb2.ListEventsResponse, query: Mapping[str, str]) -> EventsView:
    rows = tuple(event_row(one) for one in told.events)
    oldest = told.events[-1].event.number if told.events else 0
    return EventsView(
        rows,
        address(PATH, query, before=oldest) if len(rows) == AT_ONCE else "",
        address(PATH, query, before="") if query.get("before") else "",
    )


def event_row(told: notifications_pb2.EventTold) -> EventRow:
    event = told.event
    return EventRow(
        event.id,
        f"{PATH}/{step(event.id)}",
        event.kind,
        event.subject,
        event.summary,
        unix(event.at_us),
        event.user_name,
        _laid_out(event.body),
        tuple(_delivery(one) for one in told.deliveries),
    )


def subscription_row(one: notifications_pb2.Subscription) -> SubscriptionRow:
    return SubscriptionRow(
        one.id,
        f"{SUBSCRIPTIONS}/{step(one.id)}",
        one.channel,
        one.address,
        tuple(one.kinds),
        one.user_name,
        one.created_by,
        unix(one.created_at_us),
        one.delivered,
        unix(one.delivered_at_us) if one.HasField("delivered_at_us") else None,
        one.waiting,
        one.dead,
        unix(one.failing_since_us) if one.HasField("failing_since_us") else None,
        one.last_error,
    )


def _delivery(one: notifications_pb2.Delivery) -> DeliveryRow:
    return DeliveryRow(
        one.subscription_id,
        one.channel,
        one.address,
        one.state,
        _TONES.get(one.state, ""),
        one.attempts,
        unix(one.due_at_us) if one.HasField("due_at_us") else None,
        unix(one.ended_at_us) if one.HasField("ended_at_us") else None,
        one.said,
    )


def _laid_out(body: str) -> str:
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        return body
