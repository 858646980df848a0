"""`forebay usage`: what was used, by whom, of which model."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import click
from rich.markup import escape

from forebay.errors import NotAllowed, Unavailable
from forebay.wire.v1 import admin_pb2, usage_pb2
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.history.usage_sums import backend_names, show_sums, sum_options
from forebay_admin.cli.money.cost import show_cost
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain, usage_row, word
from forebay_admin.cli.words import age, coloured, count, milliseconds, parse_duration


@dataclass(frozen=True, slots=True)
class _Names:
    """Of ids in rows, as far as the caller may know them."""

    users: dict[str, str]
    backends: dict[str, str]


@click.command(short_help="What was used, by whom, of which model.")
@click.option(
    "--user", default="", metavar="NAME", help="Only this user's. Default: everyone's, or yours if you may see no more."
)
@click.option(
    "--since", default="24h", show_default=True, metavar="TIME", help="How far back: 30m, 24h, 7d; or since when."
)
@click.option("--rows", "show_rows", is_flag=True, help="The newest requests, one row each, instead of sums.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="How many rows, with --rows or --by."
)
@sum_options
@click.option("--request", "request_id", metavar="ID", help="What this request cost, or why it was not charged.")
@json_option
def usage(
    user: str,
    since: str,
    show_rows: bool,
    limit: int,
    request_id: str | None,
    as_json: bool,
    **sums: Any,
) -> None:
    """What was used: requests and tokens by user and model or by whatever else, or the newest requests.

    \b
    forebay usage
    forebay usage --since 7d --user alice
    forebay usage --rows --limit 20
    forebay usage --by group --by model --since 30d --group research
    forebay usage --bucket day --zone Europe/Berlin --since 2026-11-01 --until 2026-12-01
    forebay usage --by user --top 10 --since 7d --compare
    forebay usage --request 0190f8b2-… --since 7d
    forebay usage --since 30d --json | jq '[.[] | .completion_tokens] | add'

    With --json: a list of {"user_name", "model", "requests", "finished", "refused", "failed", "cancelled",
    "prompt_tokens", "completion_tokens"}; with --rows also: a list of {"ledger_id", "request_id", "user_id", "model",
    "outcome", "reason", "started_at", "ttft_ms", "duration_ms", "prompt_tokens", "completion_tokens", "usage_source", …},
    newest first. With --by, --bucket, or what else only they know: {"from", "to", "lines", "total", "total_before"}.
    With --request: those with that id as rows, and in each {"price", "why", "balance_id"}.
    """
    now = time.time()
    if any(sums.values()):
        if show_rows:
            raise click.UsageError(
                "--rows shows the newest requests of all kinds and goes with --user, --since and --limit alone. Leave it "
                "out for sums of some, or take the rows of some from `forebay ledger export`."
            )
        show_sums(user, since, limit, now, as_json, **sums)
        return
    if request_id is not None:
        show_cost(request_id, max(1, round((now - parse_duration(since).total_seconds()) * 1_000_000)), as_json)
        return
    request = admin_pb2.ShowUsageRequest(
        since_us=max(1, round((now - parse_duration(since).total_seconds()) * 1_000_000)),
        user=user,
        rows=show_rows,
        limit=limit,
    )

    async def work(calls: Calls) -> tuple[admin_pb2.ShowUsageResponse, _Names]:
        answer = await calls(calls.stub.ShowUsage, request)
        return answer, await _names(calls) if show_rows and not as_json else _Names({}, {})

    answer, names = ask(work)
    if as_json:
        print_json([usage_row(r) for r in answer.rows] if show_rows else [plain(s) for s in answer.sums])
    elif show_rows:
        _print_rows(list(answer.rows), names, now)
    else:
        _print_sums(list(answer.sums), since)


def _print_sums(sums: list[admin_pb2.UsageSum], since: str) -> None:
    print_table(
        (
            "User",
            "Model",
            "#Requests",
            "#Finished",
            "#Refused",
            "#Failed",
            "#Cancelled",
            "#Prompt",
            "#Completion",
        ),
        (
            (
                escape(s.user_name) or "(no valid key)",
                escape(s.model) or "(unknown)",
                count(s.requests),
                count(s.finished),
                count(s.refused),
                count(s.failed),
                count(s.cancelled),
                count(s.prompt_tokens),
                count(s.completion_tokens),
            )
            for s in sums
        ),
        nothing=f"Nothing was used in the last {since}.",
    )


def _print_rows(rows: list[usage_pb2.UsageRecord], names: _Names, now: float) -> None:
    print_table(
        ("Started", "User", "Model", "Outcome", "#Prompt", "#Completion", "#First token", "#Took", "Backend"),
        (
            (
                age(r.started_at_us, now),
                escape(names.users.get(r.user_id, r.user_id)),
                escape(r.model or r.model_requested),
                coloured(word(r, "outcome") or "unknown") + (f" ({escape(r.reason)})" if r.reason else ""),
                count(r.usage.prompt_tokens),
                count(r.usage.completion_tokens),
                milliseconds(r.ttft_ms) if r.HasField("ttft_ms") else "",
                milliseconds(r.duration_ms),
                escape(names.backends.get(r.backend_id, r.backend_id)),
            )
            for r in rows
        ),
        nothing="No requests.",
    )


async def _names(calls: Calls) -> _Names:
    """Ids stay ids for those who may not list users and backends, and while the registry is away."""
    try:
        users = {u.id: u.name for u in (await calls(calls.stub.ListUsers, admin_pb2.ListUsersRequest())).users}
    except (NotAllowed, Unavailable):
        users = {}
    return _Names(users, await backend_names(calls))
