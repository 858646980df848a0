"""Events, subscriptions and deliveries as messages. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import orjson

from forebay.clock import micros
from forebay.wire.v1 import notifications_pb2 as wire
from forebay_admin.notify.delivery_rules import State
from forebay_admin.notify.event_store import Delivery
from forebay_admin.notify.subscriptions import Subscription
from forebay_admin.notify.wording import Event


def event_to_wire(event: Event) -> wire.Event:
    return wire.Event(
        id=event.id,
        number=event.number,
        kind=event.kind,
        subject=event.subject,
        at_us=_us(event.at),
        user_name=event.user_name,
        summary=event.summary,
        body=orjson.dumps(event.body).decode(),
    )


def told_to_wire(event: Event, deliveries: Iterable[Delivery]) -> wire.EventTold:
    return wire.EventTold(
        event=event_to_wire(event),
        deliveries=[
            wire.Delivery(
                subscription_id=one.subscription_id,
                channel=one.channel,
                address=one.address,
                state=one.state.value,
                attempts=one.attempts,
                due_at_us=_us(one.due_at) if one.state is State.WAITING else None,
                ended_at_us=_us(one.ended_at) if one.ended_at is not None else None,
                said=one.said,
            )
            for one in deliveries
        ],
    )


def subscription_to_wire(one: Subscription) -> wire.Subscription:
    return wire.Subscription(
        id=one.id,
        channel=one.channel.value,
        address=one.address,
        kinds=one.kinds,
        user_name=one.user_name,
        created_by=one.created_by,
        created_at_us=_us(one.created_at),
        delivered=one.delivered,
        delivered_at_us=_us(one.delivered_at) if one.delivered_at is not None else None,
        waiting=one.waiting,
        dead=one.dead,
        failing_since_us=_us(one.failing_since) if one.failing_since is not None else None,
        last_error=one.last_error,
    )


def _us(at: datetime) -> int:
    return micros(at.timestamp())
