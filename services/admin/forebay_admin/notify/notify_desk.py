"""Calls about events: who is told of them, what there was to tell and how it went, and which parts of budgets are told.
Members have these for what is their own."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput, NotAllowed, NotFound, NotPossible
from forebay.sealed import Seal
from forebay.wire.v1 import notifications_pb2 as wire
from forebay_admin.audit.audit_store import Act, Facts, record
from forebay_admin.notify.delivery_rules import State
from forebay_admin.notify.event_store import deliveries_of, event_beginning_with, newest_events, retry_dead
from forebay_admin.notify.kinds import SUMMARY, Kind, demand_kinds
from forebay_admin.notify.notify_wire import event_to_wire, subscription_to_wire, told_to_wire
from forebay_admin.notify.outbox import Outbox
from forebay_admin.notify.subscription_store import (
    add_subscription,
    count_subscriptions,
    list_subscriptions,
    remove_subscription,
    seal_order,
    subscription_with_id,
)
from forebay_admin.notify.subscriptions import MOST, MOST_OF_ONE, Subscription, order_subscription
from forebay_admin.notify.threshold_store import set_thresholds, thresholds_of
from forebay_admin.notify.thresholds import USUAL, demand_percents
from forebay_admin.people.access import Actor
from forebay_admin.people.people_store import user_named
from forebay_admin.people.roles import Reach
from forebay_admin.quotas.quota_store import budget_with_id

log = logging.getLogger(__name__)

_MOST, _USUAL = 500, 50


class NotifyDesk:
    def __init__(self, database: Database, outbox: Outbox, seal: Seal, clock: Clock, *, has_mail: bool) -> None:
        self._database = database
        self._outbox = outbox
        self._seal = seal
        self._clock = clock
        self._has_mail = has_mail

    async def add(self, request: wire.AddSubscriptionRequest, actor: Actor) -> wire.AddSubscriptionResponse:
        """Raises BadInput, NotAllowed, NotFound, NotPossible, Unavailable."""
        own = _own(actor, "AddSubscription")
        order = order_subscription(
            channel=request.channel,
            address=request.address,
            secret=request.secret,
            kinds=request.kinds,
            own_name=actor.name if own else None,
            has_mail=self._has_mail,
        )
        if own and request.user.lower() not in ("", actor.name.lower()):
            raise NotAllowed(f"{actor.name} may subscribe only to what is their own.")
        async with self._database.writing() as connection:
            user_id = own or ((await user_named(connection, request.user)).id if request.user else "")
            if await count_subscriptions(connection) >= MOST:
                raise NotPossible(f"There are {MOST} subscriptions, which is the most: remove one first.")
            if own and await count_subscriptions(connection, own) >= MOST_OF_ONE:
                raise NotPossible(f"{MOST_OF_ONE} subscriptions are the most of one user: remove one first.")
            sealed = seal_order(self._seal, order)
            await add_subscription(connection, order, sealed, user_id=user_id, created_by=actor.name, now=self._now())
            made = await subscription_with_id(connection, order.id)
            await self._note(connection, actor, "notify.add", made.id, after=_facts(made))
        log.info("somebody is told of events", extra={"action": "notify_add", "subscription": made.id})
        return wire.AddSubscriptionResponse(subscription=subscription_to_wire(made), secret=order.secret)

    async def list_all(self, actor: Actor) -> wire.ListSubscriptionsResponse:
        async with self._database.reading() as connection:
            found = await list_subscriptions(connection, _own(actor, "ListSubscriptions"))
        return wire.ListSubscriptionsResponse(
            subscriptions=[subscription_to_wire(one) for one in found], kinds=list(Kind)
        )

    async def remove(self, request: wire.RemoveSubscriptionRequest, actor: Actor) -> wire.RemoveSubscriptionResponse:
        """Raises NotFound, NotPossible, Unavailable."""
        async with self._database.writing() as connection:
            found = await self._theirs(connection, request.id, actor, "RemoveSubscription")
            if found.is_fixed:
                raise NotPossible(f"The subscription {found.id} is always there.")
            await remove_subscription(connection, found.id)
            await self._note(connection, actor, "notify.remove", found.id, before=_facts(found))
        return wire.RemoveSubscriptionResponse(subscription=subscription_to_wire(found))

    async def test(self, request: wire.TestSubscriptionRequest, actor: Actor) -> wire.TestSubscriptionResponse:
        """Raises NotFound, NotPossible, Unavailable."""
        async with self._database.writing() as connection:
            found = await self._theirs(connection, request.id, actor, "TestSubscription")
            body = {SUMMARY: f"{actor.name} tries whether this arrives.", "subscription": found.id}
            event_id = await self._outbox.put(
                connection, Kind.TEST, f"subscription {found.id}", body, user_id=actor.user_id, only=found.id
            )
            if not await deliveries_of(connection, [event_id]):
                raise NotPossible("Nobody would be told: mail is not set up, or your name is no mail address.")
            event = await event_beginning_with(connection, event_id, "")
            await self._note(connection, actor, "notify.test", found.id, after={"event": event_id})
        return wire.TestSubscriptionResponse(event=event_to_wire(event))

    async def list_events(self, request: wire.ListEventsRequest, actor: Actor) -> wire.ListEventsResponse:
        """Raises BadInput, Unavailable."""
        if request.limit > _MOST:
            raise BadInput(f"At most {_MOST} events are told at once.")
        if request.before >= 2**63:
            raise BadInput("There is no event of so high a number.")
        kind = demand_kinds([request.kind])[0] if request.kind else ""
        own = _own(actor, "ListEvents")
        async with self._database.reading() as connection:
            found = await newest_events(
                connection,
                kind=kind,
                state=_state(request.state),
                user_id=own,
                before=request.before,
                limit=request.limit or _USUAL,
            )
            deliveries = await deliveries_of(connection, [event.id for event in found], user_id=own)
        return wire.ListEventsResponse(events=[told_to_wire(event, deliveries.get(event.id, ())) for event in found])

    async def show_event(self, request: wire.ShowEventRequest, actor: Actor) -> wire.ShowEventResponse:
        """Raises BadInput, NotFound, Unavailable."""
        own = _own(actor, "ShowEvent")
        async with self._database.reading() as connection:
            event = await event_beginning_with(connection, request.id, own)
            deliveries = await deliveries_of(connection, [event.id], user_id=own)
        return wire.ShowEventResponse(told=told_to_wire(event, deliveries.get(event.id, ())))

    async def retry(self, request: wire.RetryDeliveriesRequest, actor: Actor) -> wire.RetryDeliveriesResponse:
        """Raises BadInput, NotFound, Unavailable."""
        async with self._database.writing() as connection:
            event_id = (await event_beginning_with(connection, request.event_id, "")).id if request.event_id else ""
            if request.subscription_id:
                await subscription_with_id(connection, request.subscription_id)
            retried = await retry_dead(
                connection, event_id=event_id, subscription_id=request.subscription_id, now=self._now()
            )
            about = event_id or request.subscription_id or "everything"
            await self._note(connection, actor, "notify.retry", about, after={"retried": retried})
        return wire.RetryDeliveriesResponse(retried=retried)

    async def set_thresholds(
        self, request: wire.SetBudgetThresholdsRequest, actor: Actor
    ) -> wire.SetBudgetThresholdsResponse:
        """Raises BadInput, NotFound, Unavailable."""
        if request.usual and request.percents:
            raise BadInput("Name thresholds, or say that they are to be the usual ones; not both.")
        percents = None if request.usual else demand_percents(request.percents)
        async with self._database.writing() as connection:
            _, budget = await budget_with_id(connection, request.id)
            before = (await thresholds_of(connection, [budget.id])).get(budget.id, USUAL)
            await set_thresholds(connection, budget.id, percents)
            after = USUAL if percents is None else percents
            await self._note(
                connection,
                actor,
                "budget.thresholds",
                budget.id,
                before={"percents": [str(percent) for percent in before]},
                after={"percents": [str(percent) for percent in after]},
            )
        return wire.SetBudgetThresholdsResponse(id=budget.id, percents=after)

    async def _theirs(self, connection: AsyncConnection, subscription_id: str, actor: Actor, call: str) -> Subscription:
        """Raises NotFound, also for another's where only one's own may be touched."""
        own = _own(actor, call)
        found = await subscription_with_id(connection, subscription_id)
        if own and found.user_id != own:
            raise NotFound(f"There is no subscription {subscription_id[:64]} of yours.")
        return found

    async def _note(
        self,
        connection: AsyncConnection,
        actor: Actor,
        action: str,
        subject: str,
        *,
        before: Facts | None = None,
        after: Facts | None = None,
    ) -> None:
        act = Act(actor.name, action, subject, actor_key_id=actor.key_id, before=before, after=after)
        await record(connection, act, self._now())

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


def _own(actor: Actor, call: str) -> str:
    """The user to whose own affairs the caller is held; empty: to nobody's."""
    return "" if actor.reach(call) is Reach.ALL else actor.user_id


def _state(word: str) -> State | None:
    """Raises BadInput."""
    try:
        return State(word) if word else None
    except ValueError as error:
        raise BadInput(f"There is no state {word[:40]!r}; there are {', '.join(State)}.") from error


def _facts(one: Subscription) -> Facts:
    """Without where a webhook is and what it is signed with."""
    return {
        "channel": one.channel.value,
        "address": one.address,
        "kinds": list(one.kinds),
        "user": one.user_name,
    }
