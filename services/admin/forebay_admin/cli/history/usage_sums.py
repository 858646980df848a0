"""`forebay usage --by …`: what was used, by whatever tells requests apart, in parts of time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click
from rich.markup import escape

from forebay.errors import NotAllowed, Unavailable
from forebay.wire.v1 import admin_pb2, types_pb2
from forebay.wire.v1 import usage_queries_pb2 as wire
from forebay_admin.cli.amounts import money
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import print_json, print_table
from forebay_admin.cli.plain import plain, word
from forebay_admin.cli.spans import parse_span
from forebay_admin.cli.words import count, milliseconds, moment
from forebay_admin.ledger.usage_words import BUCKETS, COLUMNS, ORDERS, OUTCOMES

F = TypeVar("F", bound=Callable[..., Any])


def sum_options(command: F) -> F:
    """For `show_sums`: with any of them `forebay usage` tells sums in this way."""
    for option in (
        click.option("--order", type=click.Choice(tuple(ORDERS)), help="The most of what first. Default: tokens."),
        click.option("--compare", is_flag=True, help="Also with the span of the same length before it."),
        click.option("--top", type=click.IntRange(1, 100), help="Only so many of them; the others are added up."),
        click.option("--outcome", type=click.Choice(tuple(OUTCOMES)), help="Only requests that ended so."),
        click.option("--pool", default="", metavar="NAME", help="Only in this pool."),
        click.option("--backend", default="", metavar="NAME", help="Only on this backend, by its name or id."),
        click.option("--model", default="", metavar="NAME", help="Only of this model."),
        click.option("--key", "key_id", default="", metavar="ID", help="Only with this key."),
        click.option("--group", default="", metavar="NAME", help="Only of this group, and of groups within it."),
        click.option("--zone", default="", metavar="ZONE", help="Whose calendar --bucket follows: Europe/Berlin."),
        click.option("--bucket", type=click.Choice(tuple(BUCKETS)), help="In parts of time."),
        click.option("--until", metavar="TIME", help="Until when. Default: now."),
        click.option("--by", multiple=True, type=click.Choice(tuple(COLUMNS)), help="By what; may be given again."),
    ):
        command = option(command)
    return command


def show_sums(
    user: str,
    since: str,
    limit: int,
    now: float,
    as_json: bool,
    *,
    by: Sequence[str],
    until: str | None,
    bucket: str | None,
    zone: str,
    group: str,
    key_id: str,
    model: str,
    backend: str,
    pool: str,
    outcome: str | None,
    top: int | None,
    compare: bool,
    order: str | None,
) -> None:
    is_span = since[-1:].isalpha() and not since.endswith(("Z", "z"))  # 30m, and not 2026-11-30T08:00Z
    span = parse_span(since if is_span else None, None if is_span else since, until, now, since)
    request = wire.QueryUsageRequest(
        from_us=span.from_us,
        to_us=span.to_us,
        by=[COLUMNS[one] for one in by],
        bucket=BUCKETS[bucket] if bucket else wire.USAGE_BUCKET_UNSPECIFIED,
        time_zone=zone,
        user=user,
        group=group,
        key_id=key_id,
        model=model,
        pool=pool,
        outcome=OUTCOMES[outcome] if outcome else types_pb2.OUTCOME_UNSPECIFIED,
        order=ORDERS[order] if order else wire.USAGE_ORDER_UNSPECIFIED,
        top=top or 0,
        compare=compare,
        limit=limit,
    )

    async def work(calls: Calls) -> tuple[wire.QueryUsageResponse, dict[str, str]]:
        names = await backend_names(calls) if backend or ("backend" in by and not as_json) else {}
        # One that is gone has no name any more: its id is in the ledger.
        request.backend_id = next((id for id, name in names.items() if name == backend), backend)
        return await calls(calls.stub.QueryUsage, request), names

    answer, names = ask(work)
    if as_json:
        print_json(plain(answer))
        return
    columns = list(dict.fromkeys(by))
    print_table(
        (
            *(("When",) if bucket else ()),
            *(one.capitalize() for one in columns),
            *("#Requests", "#Failed", "#Prompt", "#Completion", "#Cost", "#Queued", "#First token"),
            *(("#Tokens before",) if compare else ()),
        ),
        (
            (
                *((moment(line.at_us),) if bucket else ()),
                *(_whose(line, one, names) for one in columns),
                *_numbers(line.sums),
                *((_tokens(line.before),) if compare else ()),
            )
            for line in answer.lines
        ),
        nothing="Nothing was used then.",
    )
    if answer.next_page:
        click.echo(
            f"There is more: --limit shows up to 10000 lines. All together: {count(answer.total.requests)} requests."
        )


async def backend_names(calls: Calls) -> dict[str, str]:
    """By id; none for those who may not list backends, and while the registry is away."""
    try:
        backends = (await calls(calls.stub.ShowBackends, admin_pb2.ShowBackendsRequest())).backends
    except (NotAllowed, Unavailable):
        return {}
    return {one.id: one.name for one in backends}


def _whose(line: wire.UsageLine, column: str, backends: Mapping[str, str]) -> str:
    if line.rest:
        return "(all others)"
    if column == "outcome":
        return word(line, "outcome") or "unknown"
    if column in ("key", "user", "group"):
        return escape(getattr(line, f"{column}_name") or getattr(line, f"{column}_id")) or "(none)"
    if column == "backend":
        return escape(backends.get(line.backend_id, line.backend_id)) or "(none)"
    return escape(getattr(line, column)) or "(none)"


def _numbers(sums: wire.UsageSums) -> tuple[str, ...]:
    return (
        count(sums.requests),
        count(sums.failed),
        count(sums.prompt_tokens),
        count(sums.completion_tokens),
        money(sums.cost_micros) if sums.cost_micros else "",
        milliseconds(sums.queue_ms // sums.requests) if sums.requests else "",
        milliseconds(sums.ttft_ms // sums.answered) if sums.answered else "",
    )


def _tokens(sums: wire.UsageSums) -> str:
    return count(sums.prompt_tokens + sums.completion_tokens)
