"""`forebay security`: what happened that somebody should look at, and from where Forebay may be reached."""

from __future__ import annotations

import json
import time
from contextlib import aclosing

import click
from rich.markup import escape

from forebay.wire.v1 import security_pb2 as wire
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table, visible
from forebay_admin.cli.plain import plain
from forebay_admin.cli.security.lists import lists, policy
from forebay_admin.cli.spans import parse_span, span_options
from forebay_admin.cli.words import count, moment

_EVER = "36500d"
_KINDS = (
    *("login_failed", "key_refused", "permission_refused", "quota_refused", "address_refused"),
    *("banned", "unbanned", "admin_act"),
)


@click.group(short_help="What was refused and banned, and from where Forebay may be reached.")
def security() -> None:
    """Security: events that somebody should look at, lists of addresses, and when an address is banned.

    \b
    forebay security events --follow
    forebay security events --kind key_refused --last 24h
    forebay security lists deny 203.0.113.0/24 --note "scans us"
    forebay security policy --mode restrictive
    """


security.add_command(lists)
security.add_command(policy)


@security.command()
@click.option("--follow", is_flag=True, help="Then go on with what happens, until Ctrl-C.")
@click.option("--kind", type=click.Choice(_KINDS), help="Only this.")
@click.option("--address", default="", metavar="IP", help="Only from there, or from a network such as 203.0.113.0/24.")
@click.option("--key", "key_id", default="", metavar="ID", help="Only with this key.")
@click.option("--user", default="", metavar="NAME", help="Only of this user.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="So many at most.")
@click.option("--page", default="", metavar="PAGE", help="The page that the answer before named.")
@span_options("all there is")
@json_option
def events(
    follow: bool,
    kind: str | None,
    address: str,
    key_id: str,
    user: str,
    limit: int,
    page: str,
    last: str | None,
    since: str | None,
    until: str | None,
    as_json: bool,
) -> None:
    """List what was refused, banned and done, the newest first; with --follow the newest last, and then what happens. What
    happens again and again within seconds is one event with a count.

    With --json: {"events": [{"id", "kind", "at", "last_at", "count", "source", "address", "key_id", "user", "reason",
    "detail"}], "next_page"}; with --follow one event a line
    """
    if follow and (page or until or address or key_id or user):
        raise click.UsageError("--follow goes with --kind, --limit and --last alone.")
    request = wire.ListSecurityEventsRequest(
        kind=kind or "", address=address, key_id=key_id, user=user, limit=limit, page=page
    )
    if last or since or until:
        span = parse_span(last, since, until, time.time(), _EVER)
        request.from_us, request.to_us = max(0, span.from_us), span.to_us if until else 0
    if follow:
        ask(lambda calls: _follow(calls, request, as_json=as_json))
        return

    async def work(calls: Calls) -> wire.ListSecurityEventsResponse:
        return await calls(calls.stub.ListSecurityEvents, request)

    told = ask(work)
    if as_json:
        print_json(plain(told))
        return
    print_table(
        ("When", "What", "From", "Key", "Who", "Why", "#Times", "Seen by", "More"),
        (
            (
                moment(one.at_us),
                escape(one.kind),
                escape(one.address),
                escape(one.key_id),
                escape(one.user),
                escape(one.reason),
                count(one.count),
                escape(one.source),
                escape(one.detail),
            )
            for one in told.events
        ),
        nothing="Nothing like that happened.",
    )
    if told.next_page:
        click.echo(f"There is more: add --page {told.next_page}")


async def _follow(calls: Calls, request: wire.ListSecurityEventsRequest, *, as_json: bool) -> None:
    """First it listens, then it tells what there is: nothing that happens in between is left out."""
    watched = wire.WatchSecurityEventsRequest(kind=request.kind)
    told: set[str] = set()
    async with aclosing(calls.stream(calls.stub.WatchSecurityEvents, watched)) as answers:  # type: ignore[type-var]
        async for answer in answers:
            if answer.events:
                news = [one for one in answer.events if one.id not in told]
            else:
                before = (await calls(calls.stub.ListSecurityEvents, request)).events
                news = list(reversed(before))
                told = {one.id for one in before}
            for one in news:
                click.echo(json.dumps(plain(one), ensure_ascii=False) if as_json else _line(one))


def _line(one: wire.SecurityEvent) -> str:
    parts = [
        moment(one.at_us) or "",
        one.kind,
        f"from {one.address}" if one.address else "",
        f"key {one.key_id}" if one.key_id else "",
        one.user,
        one.reason,
        f"{count(one.count)} times" if one.count > 1 else "",
        one.detail,
    ]
    return visible("  ".join(part for part in parts if part))
