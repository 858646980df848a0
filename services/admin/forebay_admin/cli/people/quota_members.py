"""`forebay quota members`: what new members of a group start with."""

from __future__ import annotations

from typing import Any

import click
from rich.markup import escape

from forebay.errors import BadInput
from forebay.wire.v1 import admin_pb2
from forebay_admin.cli.amounts import parse_cap
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.people.budget_options import budget_fields, budget_options, size_words
from forebay_admin.cli.plain import Plain, plain, word
from forebay_admin.cli.words import count

_LIMITS = (
    ("requests_per_minute", "requests a minute"),
    ("tokens_per_minute", "tokens a minute"),
    ("concurrency", "at once"),
)


@click.group()
def members() -> None:
    """What new members of a group start with: limits and budgets of their own, whoever makes them, also a provider.

    Those who are there keep what they have. Where a group has none, those of the closest group around it count.

    \b
    forebay quota members set student --requests-per-minute 20 --tokens 1000000 --period month
    forebay quota members show
    """


@members.command("set")
@click.argument("group", metavar="GROUP")
@click.option("--requests-per-minute", "requests", metavar="N|none", help="Requests begun in a minute.")
@click.option("--tokens-per-minute", "rate", metavar="N|none", help="Tokens in a minute, of prompts and answers.")
@click.option("--concurrency", metavar="N|none", help="Requests at once, waiting ones included.")
@click.option("--no-budgets", is_flag=True, help="The budgets that there are go; one that is named here stays.")
@budget_options
@json_option
def set_members(
    group: str,
    requests: str | None,
    rate: str | None,
    concurrency: str | None,
    no_budgets: bool,
    tokens: str | None,
    amount: str | None,
    as_json: bool,
    **budget: Any,
) -> None:
    """Set limits, and add a budget. What is not named stays as it is; `none` takes a limit away.

    \b
    forebay quota members set student --requests-per-minute 20 --tokens 1000000 --period month
    forebay quota members set student --money 5 --last 7d
    forebay quota members set student --no-budgets

    With --json: {"group", "requests_per_minute", "tokens_per_minute", "concurrency", "budgets": [{"unit", "amount", …}]}
    """
    budgets = []
    if tokens is not None or amount is not None:
        budgets.append(admin_pb2.MemberBudget(**budget_fields(tokens, amount, **budget)))
    elif any(budget.values()):
        raise BadInput("Say how much the budget is: one of --tokens N, --money AMOUNT.")
    request = admin_pb2.SetMemberLimitsRequest(
        group=group,
        requests_per_minute=_cap(requests),
        tokens_per_minute=_cap(rate),
        concurrency=_cap(concurrency),
        no_budgets=no_budgets,
        budgets=budgets,
    )

    async def work(calls: Calls) -> admin_pb2.SetMemberLimitsResponse:
        return await calls(calls.stub.SetMemberLimits, request)

    after = ask(work).limits
    if as_json:
        print_json(_plain(after))
        return
    click.echo(f"New members of {after.group} start with: {', '.join(_lines(after)) or 'no limits'}.")


@members.command()
@click.argument("group", metavar="GROUP", default="")
@json_option
def show(group: str, as_json: bool) -> None:
    """Show what new members of GROUP start with; of all groups that say so without it.

    With --json: a list of what `forebay quota members set` tells
    """

    async def work(calls: Calls) -> admin_pb2.ShowMemberLimitsResponse:
        return await calls(calls.stub.ShowMemberLimits, admin_pb2.ShowMemberLimitsRequest(group=group))

    found = ask(work).limits
    if as_json:
        print_json([_plain(one) for one in found])
        return
    rows = [(escape(one.group), line) for one in found for line in _lines(one)]
    print_table(("Group", "New members start with"), rows, nothing="New members start with no limits of their own.")


def _plain(limits: admin_pb2.MemberLimits) -> Plain:
    return {
        **plain(limits),
        "budgets": [{**plain(b), "period": word(b, "period") or "ever"} for b in limits.budgets],
    }


def _lines(limits: admin_pb2.MemberLimits) -> list[str]:
    lines = [f"{count(getattr(limits, name))} {what}" for name, what in _LIMITS if limits.HasField(name)]  # type: ignore[arg-type]
    return lines + [size_words(b) for b in limits.budgets]


def _cap(text: str | None) -> admin_pb2.Cap | None:
    return admin_pb2.Cap(most=parse_cap(text)) if text is not None else None
