"""`forebay balance`: what users and groups have paid in advance."""

from __future__ import annotations

import click
from rich.markup import escape

from forebay.errors import BadInput
from forebay.wire.v1 import prices_pb2
from forebay_admin.cli.amounts import money, parse_money
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.money.price import since
from forebay_admin.cli.output import F, json_option, print_json, print_table
from forebay_admin.cli.plain import plain
from forebay_admin.cli.words import count


def _owner_options(command: F) -> F:
    for option in (
        click.option("--id", "balance_id", metavar="ID", help="The balance of this id, also one that is closed."),
        click.option("--group", metavar="NAME", help="This group's, which pays for all that are within it."),
        click.option("--user", metavar="NAME", help="This user's."),
    ):
        command = option(command)
    return command


_reference_option = click.option(
    "--reference", default="", metavar="TEXT", help="Such as a bill's number. The same one again changes nothing."
)


@click.group()
def balance() -> None:
    """Balances: what users and groups have paid in advance.

    Who has a balance is charged for each request, as its price was when it began, and refused when nothing is left. A user
    pays from their own balance or else from that of the closest group around them.

    \b
    forebay balance open --group physics --amount 500
    forebay balance top-up --group physics 250 --reference bill-2027-031
    forebay balance show --group physics
    forebay balance adjust --group physics -12.50 --note "charged twice"
    forebay balance list
    """


@balance.command("open")
@_owner_options
@click.option("--amount", default="0", metavar="AMOUNT", help="What is paid in with it.")
@_reference_option
@json_option
def open_balance(
    user: str | None, group: str | None, balance_id: str | None, amount: str, reference: str, as_json: bool
) -> None:
    """Have a user or a group pay in advance, from now on. What began before is not charged.

    With --json: {"id", "kind", "name", "paid_micros", "charged_micros", "left_micros", "requests", "opened_by",
    "opened_at", "closed_at"}; money is in millionths
    """
    request = prices_pb2.OpenBalanceRequest(
        owner=_owner(user, group, balance_id), amount_micros=parse_money(amount), reference=reference
    )

    async def work(calls: Calls) -> prices_pb2.OpenBalanceResponse:
        return await calls(calls.stub.OpenBalance, request)

    _print_one(ask(work).balance, as_json)


@balance.command("close")
@_owner_options
@json_option
def close_balance(user: str | None, group: str | None, balance_id: str | None, as_json: bool) -> None:
    """Have nothing paid in advance any more. What was paid and charged stays to be seen, by its id.

    With --json: as `forebay balance open`
    """
    request = prices_pb2.CloseBalanceRequest(owner=_owner(user, group, balance_id))

    async def work(calls: Calls) -> prices_pb2.CloseBalanceResponse:
        return await calls(calls.stub.CloseBalance, request)

    _print_one(ask(work).balance, as_json)


def _posting_command(name: str, kind: str, about: str) -> None:
    # Without options that look like amounts: an adjustment may be less than nothing.
    @balance.command(name, help=about, context_settings={"ignore_unknown_options": True})
    @click.argument("amount", metavar="AMOUNT")
    @_owner_options
    @_reference_option
    @click.option("--note", default="", metavar="TEXT", help="Why.")
    @json_option
    def post(
        user: str | None,
        group: str | None,
        balance_id: str | None,
        amount: str,
        reference: str,
        note: str,
        as_json: bool,
    ) -> None:
        request = prices_pb2.PostBalanceRequest(
            owner=_owner(user, group, balance_id),
            kind=kind,
            amount_micros=_signed(amount),
            reference=reference,
            note=note,
        )

        async def work(calls: Calls) -> prices_pb2.PostBalanceResponse:
            return await calls(calls.stub.PostBalance, request)

        answer = ask(work)
        if as_json:
            print_json(plain(answer))
            return
        if answer.repeated:
            click.echo(f"{answer.posting.reference} was posted before; nothing was changed.")
        _print_one(answer.balance, False)


_JSON = """

    With --json: {"balance": as `forebay balance open`, "posting": {"id", "kind", "amount_micros", "reference", "note",
    "created_by", "at"}, "repeated", "version"}"""
_posting_command("top-up", "top_up", f"Pay AMOUNT in.{_JSON}")
_posting_command("refund", "refund", f"Give AMOUNT back for what was charged.{_JSON}")
_posting_command(
    "adjust", "adjustment", f"Put a balance right by AMOUNT, which may be less than nothing: -12.50.{_JSON}"
)


@balance.command("list")
@click.option("--all", "closed_too", is_flag=True, help="Those too that are closed.")
@json_option
def list_balances(closed_too: bool, as_json: bool) -> None:
    """List balances by name.

    With --json: a list as of `forebay balance open`
    """

    async def work(calls: Calls) -> prices_pb2.ListBalancesResponse:
        return await calls(calls.stub.ListBalances, prices_pb2.ListBalancesRequest(closed_too=closed_too))

    balances = ask(work).balances
    if as_json:
        print_json([plain(one) for one in balances])
        return
    print_table(
        ("Whose", "#Paid", "#Charged", "#Left", "#Requests", "Opened", "Closed", "ID"),
        (
            (
                f"{one.kind} {escape(one.name)}",
                money(one.paid_micros),
                money(one.charged_micros),
                money(one.left_micros),
                count(one.requests),
                since(one.opened_at_us),
                since(one.closed_at_us) if one.HasField("closed_at_us") else "",
                one.id,
            )
            for one in balances
        ),
        nothing="Nobody pays in advance. Begin that with: forebay balance open --group NAME --amount AMOUNT",
    )


@balance.command()
@_owner_options
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many of each.")
@json_option
def show(user: str | None, group: str | None, balance_id: str | None, limit: int, as_json: bool) -> None:
    """Show a balance with its newest postings and charges by hour. Default: the one that pays for you.

    With --json: {"balance", "postings": [{"id", "kind", "amount_micros", "reference", "note", "created_by", "at"}],
    "charges": [{"hour", "requests", "cost_micros"}]}
    """
    named = any((user, group, balance_id))
    request = prices_pb2.ShowBalanceRequest(owner=_owner(user, group, balance_id) if named else None, limit=limit)

    async def work(calls: Calls) -> prices_pb2.ShowBalanceResponse:
        return await calls(calls.stub.ShowBalance, request)

    answer = ask(work)
    if as_json:
        print_json(plain(answer))
        return
    _print_one(answer.balance, False)
    print_table(
        ("Posted", "Kind", "#Amount", "Reference", "Note", "By"),
        (
            (
                since(one.at_us),
                one.kind.replace("_", "-"),
                money(one.amount_micros),
                escape(one.reference),
                escape(one.note),
                escape(one.created_by),
            )
            for one in answer.postings
        ),
        nothing="Nothing was paid in.",
    )
    print_table(
        ("Hour", "#Requests", "#Cost"),
        ((since(one.hour_us), count(one.requests), money(one.cost_micros)) for one in answer.charges),
        nothing="Nothing was charged.",
    )


def _print_one(one: prices_pb2.Balance, as_json: bool) -> None:
    if as_json:
        print_json(plain(one))
        return
    closed = ", and is closed" if one.HasField("closed_at_us") else ""
    click.echo(
        f"Balance {one.id} of {one.kind} {one.name}: {money(one.left_micros)} left of {money(one.paid_micros)}{closed}."
    )


def _owner(user: str | None, group: str | None, balance_id: str | None) -> prices_pb2.BalanceOwner:
    named = [(field, one) for field, one in (("user", user), ("group", group), ("id", balance_id)) if one is not None]
    if len(named) != 1:
        raise BadInput("Say whose balance is meant, with one of --user, --group and --id.")
    return prices_pb2.BalanceOwner(**dict(named))


def _signed(text: str) -> int:
    stripped = text.strip()
    return -parse_money(stripped[1:]) if stripped.startswith("-") else parse_money(stripped)
