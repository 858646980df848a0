"""`forebay quota`: limits and budgets of users, groups and keys."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click
from rich.markup import escape

from forebay.errors import BadInput
from forebay.wire.v1 import admin_pb2
from forebay_admin.cli.amounts import parse_cap
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import F, json_option, print_json, print_table
from forebay_admin.cli.people.budget_options import (
    budget_fields,
    budget_options,
    number,
    parse_carry,
    parse_size,
    size_words,
)
from forebay_admin.cli.people.quota_members import members
from forebay_admin.cli.people.quota_request import approve, deny, list_requests, request
from forebay_admin.cli.plain import Plain, plain, word
from forebay_admin.cli.words import ahead, count

_LIMITS = (
    ("requests_per_minute", "requests a minute"),
    ("tokens_per_minute", "tokens a minute"),
    ("concurrency", "at once"),
)


def _subject_options(command: F) -> F:
    for option in (
        click.option("--key", metavar="ID", help="For this key."),
        click.option("--group", metavar="NAME", help="For all members of this group together, groups within it too."),
        click.option("--user", metavar="NAME", help="For this user, all their keys together."),
    ):
        command = option(command)
    return command


@click.group()
def quota() -> None:
    """Quotas: how much somebody may use.

    Limits say how fast (requests a minute, tokens a minute, requests at once), budgets how much in a period (tokens, or
    money by `forebay model price`). All that apply must allow a request: its key's, its user's, its groups'.

    \b
    forebay quota set --user alice --requests-per-minute 60 --concurrency 8
    forebay quota budget add --group student --tokens 50000000 --period month --time-zone Europe/Berlin
    forebay quota show --user alice
    forebay quota list
    forebay quota members set student --requests-per-minute 20
    forebay quota request --requests-per-minute 120 --reason 'a demo on Friday'
    """


for command in (request, list_requests, approve, deny, members):
    quota.add_command(command)


@quota.command("set")
@_subject_options
@click.option("--requests-per-minute", "requests", metavar="N|none", help="Requests begun in a minute.")
@click.option("--tokens-per-minute", "tokens", metavar="N|none", help="Tokens in a minute, of prompts and answers.")
@click.option("--concurrency", metavar="N|none", help="Requests at once, waiting ones included.")
@json_option
def set_limits(
    user: str | None,
    group: str | None,
    key: str | None,
    requests: str | None,
    tokens: str | None,
    concurrency: str | None,
    as_json: bool,
) -> None:
    """Set limits. What is not named stays as it is; `none` takes a limit away.

    A limit below what is used right now cuts nothing off: nothing new starts until there is room. There is no limit of 0;
    to hold somebody's requests back pause them, to refuse them revoke their keys.

    \b
    forebay quota set --user alice --requests-per-minute 60
    forebay quota set --key 5f0c2d9a41be --tokens-per-minute 100000
    forebay quota set --group student --concurrency none

    With --json: {"kind", "id", "name", "requests_per_minute", "tokens_per_minute", "concurrency", "budgets", …}
    """
    request = admin_pb2.SetLimitsRequest(
        subject=_subject(user, group, key),
        requests_per_minute=_cap(requests),
        tokens_per_minute=_cap(tokens),
        concurrency=_cap(concurrency),
    )

    async def work(calls: Calls) -> admin_pb2.SetLimitsResponse:
        return await calls(calls.stub.SetLimits, request)

    after = ask(work).quota
    if as_json:
        print_json(plain_quota(after))
        return
    click.echo(f"{_who(after)}: {_limits(after) or 'no limits'}.")


@quota.command("list")
@json_option
def list_quotas(as_json: bool) -> None:
    """List everybody who has a limit or a budget.

    What is spent is told by the ledger, which hears of a request when it has ended.

    With --json: a list of {"kind", "id", "name", "user_name", "requests_per_minute", "tokens_per_minute", "concurrency",
    "budgets": [{"id", "unit", "amount", "period", "time_zone", "spent", "left", "since", "until"}]}
    """

    async def work(calls: Calls) -> admin_pb2.ListQuotasResponse:
        return await calls(calls.stub.ListQuotas, admin_pb2.ListQuotasRequest())

    quotas = ask(work).quotas
    if as_json:
        print_json([plain_quota(q) for q in quotas])
        return
    _print(quotas, nothing="Nobody has a limit or a budget. Set one with: forebay quota set --user NAME …")


@quota.command()
@_subject_options
@json_option
def show(user: str | None, group: str | None, key: str | None, as_json: bool) -> None:
    """Show all limits and budgets that apply: somebody's own, and those of the groups that they are in. Default: yours.

    \b
    forebay quota show
    forebay quota show --user alice

    With --json: a list as of `forebay quota list`, the closest first
    """
    named = any(one is not None for one in (user, group, key))
    request = admin_pb2.ShowQuotaRequest(subject=_subject(user, group, key) if named else None)

    async def work(calls: Calls) -> admin_pb2.ShowQuotaResponse:
        return await calls(calls.stub.ShowQuota, request)

    quotas = ask(work).quotas
    if as_json:
        print_json([plain_quota(q) for q in quotas])
        return
    limited = [q for q in quotas if q.budgets or _limits(q)]
    _print(limited, nothing=f"Nothing limits {_who(quotas[0])}.")


@quota.group()
def budget() -> None:
    """Budgets: how much may be used in a period.

    \b
    forebay quota budget add --user alice --tokens 1000000 --period day
    forebay quota budget set budget_5f0c2d9a41be --tokens 2000000
    forebay quota budget remove budget_5f0c2d9a41be
    """


@budget.command()
@_subject_options
@budget_options
@json_option
def add(user: str | None, group: str | None, key: str | None, as_json: bool, **fields: Any) -> None:
    """Add a budget. Nothing that was used before counts.

    With --last, what is used counts for so long and up to a twenty-fourth longer. With --carry-over, what is left at the end
    of a period goes into the next one, half a minute after it has begun.

    \b
    forebay quota budget add --user alice --tokens 1000000 --period day
    forebay quota budget add --user alice --tokens 1000000 --last 24h
    forebay quota budget add --group student --money 250 --time-zone Europe/Berlin --carry-over 100

    With --json: {"id", "unit", "amount", "period", "time_zone", "spent", "left", "since", "until", "window_s", "carry_most",
    "carried"}; money is in millionths
    """
    request = admin_pb2.AddBudgetRequest(subject=_subject(user, group, key), **budget_fields(**fields))

    async def work(calls: Calls) -> admin_pb2.AddBudgetResponse:
        return await calls(calls.stub.AddBudget, request)

    made = ask(work).budget
    if as_json:
        print_json(plain_budget(made))
        return
    click.echo(f"Budget {made.id}: {size_words(made)}, {_resets(made)}.")


@budget.command("set")
@click.argument("budget_id", metavar="ID")
@click.option("--tokens", metavar="N", help="So many tokens.")
@click.option("--money", "amount", metavar="AMOUNT", help="So much money.")
@click.option(
    "--carry-over", "carry", metavar="N|AMOUNT|none", help="So much of what is left goes into the next period."
)
@json_option
def change(budget_id: str, tokens: str | None, amount: str | None, carry: str | None, as_json: bool) -> None:
    """Change the amount of the budget ID, and what it carries over. What was spent of it stays spent.

    \b
    forebay quota budget set budget_5f0c2d9a41be --tokens 2000000
    forebay quota budget set budget_5f0c2d9a41be --tokens 2000000 --carry-over none

    With --json: {"id", "unit", "amount", "period", "time_zone", "spent", "left", "since", "until"}
    """
    unit, size = parse_size(tokens, amount)
    carry_over = admin_pb2.Cap(most=parse_carry(unit, carry)) if carry is not None else None
    request = admin_pb2.ChangeBudgetRequest(id=budget_id, unit=unit, amount=size, carry_over=carry_over)

    async def work(calls: Calls) -> admin_pb2.ChangeBudgetResponse:
        return await calls(calls.stub.ChangeBudget, request)

    after = ask(work).budget
    if as_json:
        print_json(plain_budget(after))
        return
    click.echo(f"Budget {after.id}: {size_words(after)}, {_spent(after)}.")


@budget.command()
@click.argument("budget_id", metavar="ID")
@json_option
def remove(budget_id: str, as_json: bool) -> None:
    """Remove the budget ID, as `forebay quota list` shows it.

    With --json: {"id", "unit", "amount", …}, as it was
    """

    async def work(calls: Calls) -> admin_pb2.RemoveBudgetResponse:
        return await calls(calls.stub.RemoveBudget, admin_pb2.RemoveBudgetRequest(id=budget_id))

    gone = ask(work).budget
    if as_json:
        print_json(plain_budget(gone))
        return
    click.echo(f"Budget {gone.id} ({size_words(gone)}) is removed.")


def plain_quota(q: admin_pb2.Quota) -> Plain:
    return {**plain(q), "budgets": [plain_budget(b) for b in q.budgets]}


def plain_budget(b: admin_pb2.BudgetStanding) -> Plain:
    return {
        **plain(b),
        "period": word(b, "period") or "ever",
        "left": max(0, b.amount + b.carried - b.spent) if b.HasField("spent") else None,
    }


def _print(quotas: Sequence[admin_pb2.Quota], *, nothing: str) -> None:
    now = time.time()
    rows: list[tuple[str, ...]] = []
    for q in quotas:
        who = escape(_who(q))
        limits = _limits(q)
        if limits:
            rows.append((who, limits, "", "", "", ""))
        rows += [
            (
                who,
                size_words(b),
                number(b, b.spent) if b.HasField("spent") else "not counted",
                _left(b),
                ahead(b.until_us, now) if b.HasField("until_us") else "bit by bit" if b.window_s else "never",
                b.id,
            )
            for b in q.budgets
        ]
    print_table(("Who", "Limits and budgets", "#Spent", "#Left", "Begins anew", "Budget"), rows, nothing=nothing)


def _subject(user: str | None, group: str | None, key: str | None) -> admin_pb2.QuotaSubject:
    if sum(one is not None for one in (user, group, key)) != 1:
        raise BadInput("Say for whom: one of --user NAME, --group NAME, --key ID.")
    if user is not None:
        return admin_pb2.QuotaSubject(user=user)
    return admin_pb2.QuotaSubject(group=group) if group is not None else admin_pb2.QuotaSubject(key_id=key or "")


def _cap(text: str | None) -> admin_pb2.Cap | None:
    return admin_pb2.Cap(most=parse_cap(text)) if text is not None else None


def _who(q: admin_pb2.Quota) -> str:
    return f"key {q.id} ({q.name}) of {q.user_name}" if q.kind == "key" else f"{q.kind} {q.name}"


def _limits(q: admin_pb2.Quota) -> str:
    return ", ".join(f"{count(getattr(q, name))} {what}" for name, what in _LIMITS if q.HasField(name))  # type: ignore[arg-type]


def _left(b: admin_pb2.BudgetStanding) -> str:
    if not b.HasField("spent"):
        return ""
    left = max(0, b.amount + b.carried - b.spent)
    colour = "red" if not left else "yellow" if left * 10 < b.amount else "green"
    carried = f", {number(b, b.carried)} of it carried over" if b.carried else ""
    return f"[{colour}]{number(b, left)}[/{colour}]{carried}"


def _spent(b: admin_pb2.BudgetStanding) -> str:
    return f"{number(b, b.spent)} of it spent" if b.HasField("spent") else "what was spent could not be counted now"


def _resets(b: admin_pb2.BudgetStanding) -> str:
    if b.window_s:
        return "which begins anew bit by bit"
    return f"by the calendar of {b.time_zone}" if b.HasField("until_us") else "which never begins anew"
