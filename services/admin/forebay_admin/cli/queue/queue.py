"""`forebay queue`: who waits for what, what is held where, and who has had how much of his due."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TextIO

import click
from rich.markup import escape

from forebay.wire.v1 import admin_pb2, scheduler_pb2
from forebay_admin.cli.amounts import weight
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import Plain, plain, word
from forebay_admin.cli.words import count, milliseconds


@click.command(short_help="Who waits for what, and what is held where.")
@click.option(
    "--dump",
    type=click.File("w"),
    metavar="FILE",
    help="Write all that the scheduler knows to FILE as JSON (- prints).",
)
@json_option
def queue(dump: TextIO | None, as_json: bool) -> None:
    """Who waits for what and why, who has had how much of their share, how full the backends are, which gateways are there.

    A user's due is their part of the pool among those who wait right now; ahead tells how far they are before the least
    served beside them, in tokens: whoever is least ahead goes next.

    \b
    forebay queue
    forebay queue --json | jq '.waiting[] | select(.oldest_ms > 10000)'
    forebay queue --dump scheduler.json

    With --json: {"epoch", "waiting": [{"pool", "model", "user_id", "user_name", "band", "requests", "oldest_ms",
    "predicted_wait_ms", "blocked_by"}], "shares": [{"pool", "user_id", "user_name", "band", "groups", "group_names",
    "weight_milli", "due", "ahead_tokens", "waiting", "running"}], "held": [{"backend_id", "backend_name", "cap", "held",
    "quarantined", "lent", "draining", "closed_because", "cap_is_found"}], "gateways": [{"gateway", "generation",
    "connected", "heard_ago_ms", "running", "queued", "ceilings"}]}
    """
    if dump is not None:
        _dump(dump)
        return

    async def work(calls: Calls) -> admin_pb2.ViewQueueResponse:
        return await calls(calls.stub.ViewQueue, admin_pb2.ViewQueueRequest())

    answer = ask(work)
    if as_json:
        print_json(_plain(answer.queue, answer.names))
        return
    _print_waiting(answer.queue.waiting, answer.names)
    if answer.queue.shares:
        _print_shares(answer.queue.shares, answer.names)
    _print_held(answer.queue.held, answer.names)
    _print_gateways(answer.queue.gateways)


def _dump(file: TextIO) -> None:
    async def work(calls: Calls) -> admin_pb2.ViewDumpResponse:
        return await calls(calls.stub.ViewDump, admin_pb2.ViewDumpRequest())

    answer = ask(work)
    whole = {**plain(answer.dump), "queue": _plain(answer.dump.queue, answer.names), "names": plain(answer.names)}
    file.write(json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
    if file.name != "<stdout>":
        click.echo(f"Written to {file.name}.", err=True)


def _plain(told: scheduler_pb2.ShowQueueResponse, names: admin_pb2.Names) -> Plain:
    flat = plain(told)
    for row in (*flat["waiting"], *flat["shares"]):
        row["user_name"] = names.users.get(row["user_id"])
    for row in flat["shares"]:
        row["group_names"] = [names.groups.get(group, group) for group in row["groups"]]
    for row in flat["held"]:
        row["backend_name"] = names.backends.get(row["backend_id"])
    return flat


def _print_waiting(waiting: Sequence[scheduler_pb2.QueuedUser], names: admin_pb2.Names) -> None:
    print_table(
        ("User", "Pool", "Band", "Model", "#Waiting", "#Oldest", "#Next in", "Because"),
        (
            (
                escape(names.users.get(w.user_id, w.user_id)),
                escape(w.pool),
                word(w, "band") or "",
                escape(w.model),
                count(w.requests),
                milliseconds(w.oldest_ms),
                f"about {milliseconds(w.predicted_wait_ms)}" if w.predicted_wait_ms else "",
                escape("; ".join(w.blocked_by)),
            )
            for w in waiting
        ),
        nothing="Nobody waits.",
    )


def _print_shares(shares: Sequence[scheduler_pb2.UserShare], names: admin_pb2.Names) -> None:
    print_table(
        ("User", "Pool", "Band", "Groups", "#Weight", "#Due", "#Ahead", "#Waiting", "#Running"),
        (
            (
                escape(names.users.get(s.user_id, s.user_id)),
                escape(s.pool),
                word(s, "band") or "",
                escape(" › ".join(names.groups.get(group, group) for group in s.groups)),
                weight(s.weight_milli),
                f"{s.due:.1%}",
                f"{count(round(s.ahead_tokens))} tokens",
                count(s.waiting),
                count(s.running),
            )
            for s in shares
        ),
        nothing="",
    )


def _print_held(held: Sequence[scheduler_pb2.HeldSlots], names: admin_pb2.Names) -> None:
    print_table(
        ("Backend", "#In use", "#Of", "#Kept back", "#Lent", ""),
        (
            (
                escape(names.backends.get(h.backend_id, h.backend_id)),
                count(h.held),
                f"about {count(h.cap)}" if h.cap_is_found else count(h.cap),
                count(h.quarantined),
                count(h.lent),
                _state(h),
            )
            for h in held
        ),
        nothing="No backends. Add one with: forebay backend add NAME URL",
    )


def _state(h: scheduler_pb2.HeldSlots) -> str:
    if h.draining:
        return "[yellow]drained[/yellow]" if not h.held + h.quarantined else "[yellow]draining[/yellow]"
    return f"[red]closed[/red]: {escape(h.closed_because)}" if h.closed_because else ""


def _print_gateways(gateways: Sequence[scheduler_pb2.GatewaySession]) -> None:
    print_table(
        ("Gateway", "Heard", "#Running", "#Queued", "#May hold", ""),
        (
            (
                escape(g.gateway),
                f"{milliseconds(g.heard_ago_ms)} ago",
                count(g.running),
                count(g.queued),
                count(g.ceilings),
                "" if g.connected else "[red]away[/red]",
            )
            for g in gateways
        ),
        nothing="No gateway is connected.",
    )
