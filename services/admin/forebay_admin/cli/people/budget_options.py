"""How much in which time, as people write a budget, and as it is told to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from forebay.errors import BadInput
from forebay.wire.v1 import admin_pb2
from forebay_admin.cli.amounts import money, parse_cap, parse_money
from forebay_admin.cli.output import F
from forebay_admin.cli.plain import word
from forebay_admin.cli.words import count, parse_duration, span

PERIODS = {
    "ever": admin_pb2.BUDGET_PERIOD_UNSPECIFIED,
    "hour": admin_pb2.BUDGET_PERIOD_HOUR,
    "day": admin_pb2.BUDGET_PERIOD_DAY,
    "week": admin_pb2.BUDGET_PERIOD_WEEK,
    "month": admin_pb2.BUDGET_PERIOD_MONTH,
    "year": admin_pb2.BUDGET_PERIOD_YEAR,
}

Told = admin_pb2.BudgetStanding | admin_pb2.MemberBudget


def budget_options(command: F) -> F:
    for option in (
        click.option(
            "--carry-over",
            "carry",
            metavar="N|AMOUNT",
            help="So much at most of what is left goes into the next period.",
        ),
        click.option("--time-zone", default="", metavar="ZONE", help="Whose calendar: Europe/Berlin. Default: UTC."),
        click.option("--last", metavar="SPAN", help="In place of a period: what is used counts for so long: 24h, 30d."),
        click.option(
            "--period",
            type=click.Choice(list(PERIODS)),
            help="When it begins anew, by the calendar; weeks begin on Monday. Default: month.",
        ),
        click.option(
            "--money", "amount", metavar="AMOUNT", help="So much money, such as 25.00, by `forebay model price`."
        ),
        click.option("--tokens", metavar="N", help="So many tokens, of prompts and answers."),
    ):
        command = option(command)
    return command


def budget_fields(
    tokens: str | None,
    amount: str | None,
    period: str | None,
    last: str | None,
    time_zone: str,
    carry: str | None,
) -> Mapping[str, Any]:
    """Of an AddBudgetRequest or a MemberBudget. Raises BadInput."""
    if period is not None and last is not None:
        raise BadInput(
            "A budget begins anew by the calendar (--period) or counts the last hours or days (--last): not both."
        )
    unit, size = parse_size(tokens, amount)
    return {
        "unit": unit,
        "amount": size,
        "period": PERIODS["ever" if last is not None else period or "month"],
        "time_zone": time_zone,
        "window_s": round(parse_duration(last).total_seconds()) if last is not None else 0,
        "carry_most": parse_carry(unit, carry) if carry is not None else None,
    }


def parse_size(tokens: str | None, amount: str | None) -> tuple[admin_pb2.BudgetUnit.ValueType, int]:
    """Raises BadInput."""
    if (tokens is None) == (amount is None):
        raise BadInput("Say how much: one of --tokens N, --money AMOUNT.")
    if tokens is None:
        return admin_pb2.BUDGET_UNIT_MONEY, parse_money(amount or "")
    size = parse_cap(tokens)
    if size is None:
        raise BadInput("A budget without an amount is none: remove it with `forebay quota budget remove ID`.")
    return admin_pb2.BUDGET_UNIT_TOKENS, size


def parse_carry(unit: admin_pb2.BudgetUnit.ValueType, text: str) -> int | None:
    """None for `none`. Raises BadInput."""
    if text.strip().lower() == "none":
        return None
    return parse_cap(text) if unit == admin_pb2.BUDGET_UNIT_TOKENS else parse_money(text)


def size_words(b: Told) -> str:
    period = word(b, "period")
    kind = "tokens" if b.unit == admin_pb2.BUDGET_UNIT_TOKENS else "money"
    when = f"in {span(b.window_s)}" if b.window_s else f"a {period}" if period else "for ever"
    carried = f", carrying over up to {number(b, b.carry_most)}" if b.HasField("carry_most") else ""
    return f"{number(b, b.amount)} {kind} {when}{carried}"


def number(b: Told, amount: int) -> str:
    return count(amount) if b.unit == admin_pb2.BUDGET_UNIT_TOKENS else money(amount)
