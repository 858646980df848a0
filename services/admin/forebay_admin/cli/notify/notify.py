"""`forebay notify`: what happened, and who is told of it."""

from __future__ import annotations

import time
from pathlib import Path

import click
from rich.markup import escape

from forebay.errors import BadInput
from forebay.wire.v1 import notifications_pb2 as wire
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain
from forebay_admin.cli.words import age, ahead, coloured, count, moment

_kind_option = click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="Such as budget.threshold or quota.*; may be repeated. Default: all.",
)
_user_option = click.option("--user", default="", metavar="NAME", help="Tell only of what is this user's own affair.")


@click.group(short_help="Events, and who is told of them.")
def notify() -> None:
    """Events, and who is told of them: budgets and balances that are used up, requests for more and what became of them.

    Whom an event is about is written to where mail is set up and their name is a mail address; all events are on NATS, under
    forebay.events.notices.KIND. Others subscribe:

    \b
    forebay notify add webhook https://hooks.example.com/forebay --kind 'budget.*'
    forebay notify add mail ops@example.com
    forebay notify list
    forebay notify events --state dead
    forebay notify retry
    forebay notify thresholds budget_3f9c 50 75 90 100
    """


@notify.group("add")
def add_subscription() -> None:
    """Have somebody told of events."""


@add_subscription.command()
@click.argument("url")
@_kind_option
@_user_option
@click.option(
    "--secret-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What messages are signed with: whsec_ and base64. Default: one is made, and shown this once.",
)
@json_option
def webhook(url: str, kinds: tuple[str, ...], user: str, secret_file: Path | None, as_json: bool) -> None:
    """POST events to URL, signed as the Standard Webhooks specification has it. It may be one of your own network; a path or
    query in it is not shown again.

    With --json: {"subscription": {"id", "channel", "address", "kinds", "user_name", "created_by", "created_at", …},
    "secret"}
    """
    secret = secret_file.read_text().strip() if secret_file is not None else ""
    request = wire.AddSubscriptionRequest(channel="webhook", address=url, kinds=kinds, user=user, secret=secret)
    answer = _added(request)
    if as_json:
        print_json(plain(answer))
        return
    click.echo(f"{answer.subscription.id}: {answer.subscription.address} is told of {_kinds(answer.subscription)}.")
    if secret_file is None:
        click.echo(f"Its messages are signed with {answer.secret}, which is not shown again.")


@add_subscription.command()
@click.argument("address", default="")
@_kind_option
@_user_option
@json_option
def mail(address: str, kinds: tuple[str, ...], user: str, as_json: bool) -> None:
    """Send events to the mail ADDRESS; default: your own, if your name is one.

    With --json: {"id", "channel", "address", "kinds", "user_name", "created_by", "created_at", …}
    """
    added = _added(wire.AddSubscriptionRequest(channel="mail", address=address, kinds=kinds, user=user)).subscription
    if as_json:
        print_json(plain(added))
        return
    click.echo(f"{added.id}: {added.address} is told of {_kinds(added)}.")


@notify.command("list")
@json_option
def list_subscriptions(as_json: bool) -> None:
    """List who is told of events, and how that goes.

    With --json: {"subscriptions": [{"id", "channel", "address", "kinds", "user_name", "created_by", "created_at",
    "delivered", "delivered_at", "waiting", "dead", "failing_since", "last_error"}], "kinds"}
    """

    async def work(calls: Calls) -> wire.ListSubscriptionsResponse:
        return await calls(calls.stub.ListSubscriptions, wire.ListSubscriptionsRequest())

    told = ask(work)
    if as_json:
        print_json(plain(told))
        return
    now = time.time()
    print_table(
        ("Id", "How", "Where", "Of", "Events", "#Told", "#Waiting", "#Given up", "State"),
        (
            (
                one.id,
                one.channel,
                escape(one.address) or ("whom it is about" if one.channel == "mail" else ""),
                escape(one.user_name) or "all",
                ", ".join(one.kinds),
                count(one.delivered),
                count(one.waiting),
                count(one.dead),
                _state(one, now),
            )
            for one in told.subscriptions
        ),
        nothing="You have no subscription. Add one with: forebay notify add mail",
    )


@notify.command()
@click.argument("id")
@json_option
def remove(id: str, as_json: bool) -> None:
    """Tell the subscription ID nothing more, also not what still waits for it.

    With --json: {"id", "channel", "address", …}, as it was
    """

    async def work(calls: Calls) -> wire.RemoveSubscriptionResponse:
        return await calls(calls.stub.RemoveSubscription, wire.RemoveSubscriptionRequest(id=id))

    removed = ask(work).subscription
    if as_json:
        print_json(plain(removed))
        return
    click.echo(f"{removed.id} is removed: {removed.channel} {removed.address} is told nothing more.")


@notify.command()
@click.argument("id")
@json_option
def test(id: str, as_json: bool) -> None:
    """Tell the subscription ID something now.

    With --json: {"id", "number", "kind", "subject", "at", "user_name", "summary", "body"}
    """

    async def work(calls: Calls) -> wire.TestSubscriptionResponse:
        return await calls(calls.stub.TestSubscription, wire.TestSubscriptionRequest(id=id))

    event = ask(work).event
    if as_json:
        print_json(plain(event))
        return
    click.echo(f"It is on its way. How it went: forebay notify show {event.id}")


@notify.command()
@click.option("--kind", default="", metavar="KIND", help="Such as budget.threshold or quota.*")
@click.option(
    "--state", type=click.Choice(["waiting", "delivered", "dead"]), help="Those that somebody is so to be told."
)
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@click.option("--before", type=click.IntRange(1), default=None, metavar="NUMBER", help="Those before this number.")
@json_option
def events(kind: str, state: str | None, limit: int, before: int | None, as_json: bool) -> None:
    """List what happened, the newest first.

    With --json: [{"event": {"id", "number", "kind", "subject", "at", "user_name", "summary", "body"}, "deliveries":
    [{"subscription_id", "channel", "address", "state", "attempts", "due_at", "ended_at", "said"}]}]
    """
    request = wire.ListEventsRequest(kind=kind, state=state or "", limit=limit, before=before or 0)

    async def work(calls: Calls) -> wire.ListEventsResponse:
        return await calls(calls.stub.ListEvents, request)

    found = ask(work).events
    if as_json:
        print_json([plain(one) for one in found])
        return
    now = time.time()
    print_table(
        ("Id", "#Number", "When", "Kind", "What", "Told"),
        (
            (
                one.event.id,
                str(one.event.number),
                age(one.event.at_us, now),
                one.event.kind,
                escape(one.event.summary),
                ", ".join(f"{d.channel} {coloured(d.state)}" for d in one.deliveries),
            )
            for one in found
        ),
        nothing="Nothing happened of which anybody could be told.",
    )


@notify.command()
@click.argument("id")
@json_option
def show(id: str, as_json: bool) -> None:
    """Show the event ID (or enough of its beginning) and who was told of it.

    With --json: {"event", "deliveries"}, as in `forebay notify events --json`
    """

    async def work(calls: Calls) -> wire.ShowEventResponse:
        return await calls(calls.stub.ShowEvent, wire.ShowEventRequest(id=id))

    told = ask(work).told
    if as_json:
        print_json(plain(told))
        return
    event, now = told.event, time.time()
    rows = [
        ("Id", event.id),
        ("Kind", event.kind),
        ("What", escape(event.summary)),
        ("About", escape(event.subject)),
        ("When", moment(event.at_us)),
        ("Facts", escape(event.body)),
    ]
    print_table(("Event", ""), rows, nothing="")
    print_table(
        ("Subscription", "How", "Where", "State", "#Tries", "When", "Said"),
        (
            (
                one.subscription_id,
                one.channel,
                escape(one.address),
                coloured(one.state),
                count(one.attempts),
                moment(one.ended_at_us) if one.HasField("ended_at_us") else _due(one, now),
                escape(one.said),
            )
            for one in told.deliveries
        ),
        nothing="Nobody is told of it.",
    )


@notify.command()
@click.argument("event", default="")
@click.option("--subscription", default="", metavar="ID", help="Only what this one was to be told.")
@json_option
def retry(event: str, subscription: str, as_json: bool) -> None:
    """Tell anew what was given up: of EVENT, or of all.

    With --json: {"retried"}
    """
    request = wire.RetryDeliveriesRequest(event_id=event, subscription_id=subscription)

    async def work(calls: Calls) -> wire.RetryDeliveriesResponse:
        return await calls(calls.stub.RetryDeliveries, request)

    answer = ask(work)
    if as_json:
        print_json(plain(answer))
        return
    click.echo(f"{answer.retried} are told anew." if answer.retried else "Nothing was given up.")


@notify.command()
@click.argument("budget")
@click.argument("percents", nargs=-1, type=click.IntRange(1, 1000))
@click.option("--usual", is_flag=True, help="50, 80 and 100.")
@click.option("--none", "nothing", is_flag=True, help="Tell of none.")
@json_option
def thresholds(budget: str, percents: tuple[int, ...], usual: bool, nothing: bool, as_json: bool) -> None:
    """Tell once a period when so many PERCENTS of BUDGET are used. Ids of budgets: forebay quota list

    With --json: {"id", "percents"}
    """
    if bool(percents) + usual + nothing != 1:
        raise BadInput("Say which percents, or --usual, or --none.")
    request = wire.SetBudgetThresholdsRequest(id=budget, percents=percents, usual=usual)

    async def work(calls: Calls) -> wire.SetBudgetThresholdsResponse:
        return await calls(calls.stub.SetBudgetThresholds, request)

    answer = ask(work)
    if as_json:
        print_json(plain(answer))
        return
    told = ", ".join(f"{percent} %" for percent in answer.percents)
    click.echo(
        f"Of the budget {answer.id} is told at {told}." if told else f"Of the budget {answer.id} nothing is told."
    )


def _added(request: wire.AddSubscriptionRequest) -> wire.AddSubscriptionResponse:
    async def work(calls: Calls) -> wire.AddSubscriptionResponse:
        return await calls(calls.stub.AddSubscription, request)

    return ask(work)


def _kinds(one: wire.Subscription) -> str:
    what = "all events" if list(one.kinds) == ["*"] else ", ".join(one.kinds)
    return f"{what} of {one.user_name}" if one.user_name else what


def _state(one: wire.Subscription, now: float) -> str:
    if not one.HasField("failing_since_us"):
        return coloured("ok")
    return f"[red]failing[/red] for {age(one.failing_since_us, now).removesuffix(' ago')}: {escape(one.last_error)}"


def _due(one: wire.Delivery, now: float) -> str:
    return ahead(one.due_at_us, now) if one.due_at_us / 1_000_000 > now else "now"
