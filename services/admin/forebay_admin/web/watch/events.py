"""`/console/events`: what happened, whom it was told, and who wants to hear of it."""

from __future__ import annotations

from aiohttp import web

from forebay.wire.v1 import notifications_pb2
from forebay_admin.web.drafts import CORRECTABLE, NO_DRAFTS, Drafts, demand_sure, refused, sent
from forebay_admin.web.forms import Form, WrongField
from forebay_admin.web.paging import by_page, step
from forebay_admin.web.visit import Visit, Visits
from forebay_admin.web.watch.events_view import (
    CHANNELS,
    PATH,
    STATES,
    SUBSCRIPTIONS,
    asked_for,
    event_row,
    events_view,
    subscription_row,
)


class EventsPages:
    def __init__(self, visits: Visits) -> None:
        self._visits = visits

    def routes(self) -> list[web.RouteDef]:
        get, post, one = self._visits.get, self._visits.post, f"{SUBSCRIPTIONS}/{{id}}"
        return [
            get(PATH, self._list, call="ListEvents", whole=True),
            post("/console/deliveries/retry", sent("retry", self._retry, self._show_list), call="RetryDeliveries"),
            get(SUBSCRIPTIONS, self._subscriptions, call="ListSubscriptions", whole=True),
            post(
                SUBSCRIPTIONS,
                sent("add", self._add, self._show_subscriptions, "address"),
                call="AddSubscription",
                whole=True,
            ),
            post(
                f"{one}/test", sent("test", self._test, self._show_subscriptions), call="TestSubscription", whole=True
            ),
            post(f"{one}/remove", self._remove, call="RemoveSubscription", whole=True),
            get(f"{PATH}/{{id}}", self._one, call="ShowEvent", whole=True),
        ]

    # --- events ---------------------------------------------------------------------------------------------------------

    async def _list(self, visit: Visit) -> web.StreamResponse:
        return await self._show_list(visit, NO_DRAFTS)

    async def _show_list(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        query = Form(tuple(visit.query.items()))
        try:
            told = await visit.ask("ListEvents", asked_for(query))
        except CORRECTABLE as error:
            drafts, told = refused("filter", query, error, "kind"), notifications_pb2.ListEventsResponse()
        return visit.page(
            "watch/events.html",
            title="Events",
            status=drafts.status,
            view=events_view(told, visit.query),
            filters=drafts.filled("filter", query),
            states=(("", "any"), *STATES),
            drafts=drafts,
        )

    async def _one(self, visit: Visit) -> web.StreamResponse:
        told = await visit.ask("ShowEvent", notifications_pb2.ShowEventRequest(id=visit.part("id")))
        row = event_row(told.told)
        return visit.page("watch/event.html", title=row.kind, row=row)

    async def _retry(self, visit: Visit) -> web.StreamResponse:
        event_id = visit.form.get("event")
        order = notifications_pb2.RetryDeliveriesRequest(
            event_id=event_id, subscription_id=visit.form.get("subscription")
        )
        retried = (await visit.ask("RetryDeliveries", order)).retried
        return visit.done(f"{PATH}/{step(event_id)}" if event_id else PATH, f"{retried:,} messages are tried again.")

    # --- subscriptions --------------------------------------------------------------------------------------------------

    async def _subscriptions(self, visit: Visit) -> web.StreamResponse:
        return await self._show_subscriptions(visit, NO_DRAFTS)

    async def _show_subscriptions(self, visit: Visit, drafts: Drafts, secret: str = "") -> web.StreamResponse:
        told = await visit.ask("ListSubscriptions", notifications_pb2.ListSubscriptionsRequest())
        return visit.page(
            "watch/subscriptions.html",
            title="Who is told",
            status=drafts.status,
            view=by_page([subscription_row(one) for one in told.subscriptions], SUBSCRIPTIONS, visit.query),
            kinds=tuple(told.kinds),
            channels=CHANNELS,
            drafts=drafts,
            secret=secret,
        )

    async def _add(self, visit: Visit) -> web.StreamResponse:
        form = visit.form
        channel = form.get("channel", "webhook")
        if channel not in CHANNELS:
            raise WrongField("channel", f"Messages go by {' or by '.join(CHANNELS)}.")
        if channel == "webhook":
            form.demand("address", "The webhook's address")
        order = notifications_pb2.AddSubscriptionRequest(
            channel=channel,
            address=form.get("address"),
            kinds=form.many("kinds"),
            secret=form.get("secret"),
            user=form.get("user"),
        )
        made = await visit.ask("AddSubscription", order)
        if made.secret:
            return await self._show_subscriptions(visit, NO_DRAFTS, made.secret)
        return visit.done(SUBSCRIPTIONS, "The subscription is added.")

    async def _test(self, visit: Visit) -> web.StreamResponse:
        order = notifications_pb2.TestSubscriptionRequest(id=visit.part("id"))
        event = (await visit.ask("TestSubscription", order)).event
        return visit.done(f"{PATH}/{event.id}", "A test is on its way; what became of it stands here.")

    async def _remove(self, visit: Visit) -> web.StreamResponse:
        return await sent(f"remove-{visit.part('id')}", self._really_remove, self._show_subscriptions, "sure")(visit)

    async def _really_remove(self, visit: Visit) -> web.StreamResponse:
        demand_sure(visit.form)
        order = notifications_pb2.RemoveSubscriptionRequest(id=visit.part("id"))
        removed = (await visit.ask("RemoveSubscription", order)).subscription
        return visit.done(
            SUBSCRIPTIONS, f"The {removed.channel} to {removed.address or 'whom it is about'} is removed."
        )
