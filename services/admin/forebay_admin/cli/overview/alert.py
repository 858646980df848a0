"""`forebay alert`: what has to be looked after, who knows of it, and what is to be silent."""

from __future__ import annotations

import time

import click
from rich.markup import escape

from forebay.errors import ForebayError
from forebay.wire.v1 import alerts_pb2 as wire
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain, word
from forebay_admin.cli.words import age, ahead, coloured, count, milliseconds, moment, parse_duration

COLUMNS = ("Id", "Severity", "What", "Since", "Known to")


@click.group(short_help="Alerts: what has to be looked after.")
def alert() -> None:
    """Alerts: what has to be looked after, by rules of the registry. Each is open once, is told to webhooks and on NATS, and
    closes by itself when it does not hold any more.

    \b
    forebay alert list
    forebay alert ack al-3f9c --note "fan is ordered"
    forebay alert silence node/gpu-box-1 --for 2h --reason "new driver"
    forebay alert test
    """


@alert.command("list")
@click.option("--all", "closed", is_flag=True, help="Also those that are over, for 90 days.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Of those that are over.")
@json_option
def list_alerts(closed: bool, limit: int, as_json: bool) -> None:
    """List open alerts, the gravest first, with what is silenced and how webhooks are.

    With --json: {"alerts": [{"id", "rule", "subject", "node", "severity", "summary", "todo", "began_at", "opened_at",
    "closed_at", "closed_because", "acked_at", "acked_by", "ack_note", "silenced_until", "notified_at"}], "silences":
    [{"id", "subject", "rule", "ends_at", …}], "webhooks": [{"name", "host", "delivered", "waiting", "failing_since", …}]}
    """

    async def work(calls: Calls) -> wire.ListAlertsResponse:
        return await calls(calls.stub.ListAlerts, wire.ListAlertsRequest(closed=closed, limit=limit))

    told = ask(work)
    if as_json:
        print_json(plain(told))
        return
    now = time.time()
    nothing = "No alerts." if closed else "No alert is open. Those that are over: forebay alert list --all"
    print_table(COLUMNS, (alert_row(one, now) for one in told.alerts), nothing=nothing)
    if told.silences:
        print_table(
            ("Silenced", "Rule", "Ends", "By", "Reason"),
            (
                (escape(s.subject), s.rule or "all", ahead(s.ends_at_us, now), escape(s.added_by), escape(s.reason))
                for s in told.silences
            ),
            nothing="",
        )
    if told.webhooks:
        print_table(
            ("Webhook", "Host", "#Told", "#Waiting", "#Given up", "State"),
            (
                (
                    escape(hook.name),
                    escape(hook.host),
                    count(hook.delivered),
                    count(hook.waiting),
                    count(hook.given_up),
                    _webhook_state(hook, now),
                )
                for hook in told.webhooks
            ),
            nothing="",
        )


@alert.command()
@click.argument("id")
@json_option
def show(id: str, as_json: bool) -> None:
    """Show the alert ID (or enough of its beginning), open or over.

    With --json: {"id", "rule", "subject", …}, as in `forebay alert list --json`
    """

    async def work(calls: Calls) -> wire.ShowAlertResponse:
        return await calls(calls.stub.ShowAlert, wire.ShowAlertRequest(id=id))

    found = ask(work).alert
    if as_json:
        print_json(plain(found))
        return
    rows = [
        ("Id", found.id),
        ("Rule", escape(found.rule)),
        ("Of", escape(found.subject)),
        ("Severity", coloured(word(found, "severity") or "")),
        ("What", escape(found.summary)),
        ("To do", escape(found.todo)),
        ("Began", moment(found.began_at_us)),
        ("Opened", moment(found.opened_at_us)),
        ("Told", moment(found.notified_at_us) if found.HasField("notified_at_us") else "nobody yet"),
        ("Known to", _known(found)),
        ("Over", f"{moment(found.closed_at_us)}: {escape(found.closed_because)}" if found.closed_at_us else ""),
    ]
    print_table(("Alert", ""), ((head, what) for head, what in rows if what), nothing="")


@alert.command()
@click.argument("id")
@click.option("--note", default="", metavar="TEXT", help="For the others: one line.")
@json_option
def ack(id: str, note: str, as_json: bool) -> None:
    """Say that you know of the alert ID: it is not told again, unless it gets graver, and still closes by itself.

    With --json: {"id", "rule", "subject", …}, as in `forebay alert list --json`
    """

    async def work(calls: Calls) -> wire.AckAlertResponse:
        return await calls(calls.stub.AckAlert, wire.AckAlertRequest(id=id, note=note))

    answer = ask(work)
    if as_json:
        print_json(plain(answer.alert))
        return
    before = f" (before: {answer.before.acked_by})" if answer.before.acked_by else ""
    click.echo(f"{answer.alert.id} is known to {answer.alert.acked_by}{before}: {answer.alert.summary}")


@alert.command()
@click.argument("subject")
@click.option("--for", "for_", required=True, metavar="TIME", help="For how long: 30m, 2h, 7d.")
@click.option("--rule", default="", help="Only alerts of this rule, such as gpu_hot.")
@click.option("--reason", default="", metavar="TEXT", help="For those who wonder: one line.")
@json_option
def silence(subject: str, for_: str, rule: str, reason: str, as_json: bool) -> None:
    """Tell nobody of alerts of SUBJECT for a while: backend/NAME, node/NAME (with all that is on it), gpu/NODE/0,
    disk/NODE/PATH, pool/NAME, registry, or a pattern with *. What is still open then is told.

    \b
    forebay alert silence node/gpu-box-1 --for 2h --reason "new driver"
    forebay alert silence 'backend/test-*' --rule backend_flapping --for 7d

    With --json: {"silence": {"id", "subject", "rule", "ends_at", …}, "before", "alerts"}
    """
    seconds = round(parse_duration(for_).total_seconds())
    request = wire.SilenceAlertsRequest(subject=subject, rule=rule, for_s=seconds, reason=reason)

    async def work(calls: Calls) -> wire.SilenceAlertsResponse:
        return await calls(calls.stub.SilenceAlerts, request)

    answer = ask(work)
    if as_json:
        print_json(plain(answer))
        return
    covered = f"; it covers {len(answer.alerts)} open now" if answer.alerts else ""
    what = f"{rule} of {subject}" if rule else subject
    click.echo(f"Alerts of {what} are silent until {moment(answer.silence.ends_at_us)}{covered}.")


@alert.command()
@click.argument("subject")
@click.option("--rule", default="", help="Only the silence of this rule.")
@json_option
def unsilence(subject: str, rule: str, as_json: bool) -> None:
    """End the silence of SUBJECT, as it was named (or by its id).

    With --json: a list of {"id", "subject", "rule", …}, as they were
    """

    async def work(calls: Calls) -> wire.UnsilenceAlertsResponse:
        return await calls(calls.stub.UnsilenceAlerts, wire.UnsilenceAlertsRequest(subject=subject, rule=rule))

    ended = ask(work).before
    if as_json:
        print_json([plain(one) for one in ended])
        return
    for one in ended:
        click.echo(f"Alerts of {one.subject} are told again{f' ({one.rule})' if one.rule else ''}.")


@alert.command()
@click.option("--webhook", default="", metavar="NAME", help="Only this one.")
@json_option
def test(webhook: str, as_json: bool) -> None:
    """Send a test to every webhook now, whatever severities it wants, and say how each took it.

    With --json: a list of {"webhook", "delivered", "detail", "took_ms"}
    """

    async def work(calls: Calls) -> wire.TestAlertsResponse:
        return await calls(calls.stub.TestAlerts, wire.TestAlertsRequest(webhook=webhook))

    tests = ask(work).tests
    if as_json:
        print_json([plain(one) for one in tests])
    else:
        print_table(
            ("Webhook", "State", "#Took", "What it said"),
            (
                (
                    escape(one.webhook),
                    coloured("ok" if one.delivered else "failed"),
                    milliseconds(one.took_ms),
                    escape(one.detail),
                )
                for one in tests
            ),
            nothing="No webhook is set up: see [[registry.webhooks]] in the registry's settings. NATS was told.",
        )
    failed = [one.webhook for one in tests if not one.delivered]
    if failed:
        raise ForebayError(f"Not delivered: {', '.join(failed)}.")


def alert_row(one: wire.Alert, now: float) -> tuple[str, ...]:
    """By COLUMNS."""
    over = f"\n[dim]over {age(one.closed_at_us, now)}: {escape(one.closed_because)}[/dim]" if one.closed_at_us else ""
    todo = "" if one.closed_at_us else f"\n[dim]{escape(one.todo)}[/dim]"
    return (
        one.id,
        coloured(word(one, "severity") or ""),
        escape(one.summary) + todo + over,
        age(one.began_at_us, now),
        _known(one, now),
    )


def _known(one: wire.Alert, now: float | None = None) -> str:
    told = []
    if one.HasField("acked_at_us"):
        told.append(escape(one.acked_by) + (f": {escape(one.ack_note)}" if one.ack_note else ""))
    if one.HasField("silenced_until_us"):
        until = ahead(one.silenced_until_us, now) if now is not None else moment(one.silenced_until_us)
        told.append(f"silenced, ends {until}")
    return "\n".join(told)


def _webhook_state(hook: wire.WebhookState, now: float) -> str:
    if hook.HasField("failing_since_us"):
        return f"[red]failing[/red] since {age(hook.failing_since_us, now)}: {escape(hook.last_error)}"
    return f"{coloured('ok')}, {age(hook.delivered_at_us, now)}" if hook.HasField("delivered_at_us") else "not used yet"
