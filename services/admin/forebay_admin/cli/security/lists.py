"""`forebay security lists` and `forebay security policy`: which addresses are let in, and when one is banned."""

from __future__ import annotations

import click
from rich.markup import escape

from forebay.wire.v1 import security_pb2 as wire
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain
from forebay_admin.cli.words import moment, parse_duration, span

_LISTS = {"deny": wire.ADDRESS_LIST_DENY, "allow": wire.ADDRESS_LIST_ALLOW}
_DONE = {"deny": "denied", "allow": "allowed"}
_MODES = {"permissive": wire.ADDRESS_MODE_PERMISSIVE, "restrictive": wire.ADDRESS_MODE_RESTRICTIVE}

_force_option = click.option("--force", is_flag=True, help="Even if it locks you out, or this machine.")
_note_option = click.option("--note", default="", metavar="TEXT", help="Why, for those who come after.")


@click.group()
def lists() -> None:
    """Lists of addresses, for gateways and admin's HTTP port. Who is denied is turned away, with a valid key too; who is
    allowed is never banned for wrong keys, and in the mode `restrictive` nobody else is let in. Admin's gRPC port, which
    this command line uses, is open to all who have a right to it.

    \b
    forebay security lists show
    forebay security lists deny 203.0.113.0/24
    forebay security lists allow 10.0.0.0/8 --note "the office"
    forebay security lists remove deny 203.0.113.0/24
    """


@lists.command()
@json_option
def show(as_json: bool) -> None:
    """Show who is denied and allowed, and when somebody is banned.

    With --json: {"policy": {"mode", "ban_after", "ban_window_s", "ban_first_s", "ban_longest_s"}, "rules": [{"list",
    "network", "note", "created_by", "created_at"}]}
    """

    async def work(calls: Calls) -> wire.ListAddressRulesResponse:
        return await calls(calls.stub.ListAddressRules, wire.ListAddressRulesRequest())

    told = ask(work)
    if as_json:
        print_json(plain(told))
        return
    click.echo(_sentence(told.policy))
    print_table(
        ("Network", "Is", "By", "Since", "Note"),
        (
            (
                escape(rule.network),
                "denied" if rule.list == wire.ADDRESS_LIST_DENY else "allowed",
                escape(rule.created_by),
                moment(rule.created_at_us),
                escape(rule.note),
            )
            for rule in told.rules
        ),
        nothing="No address is denied or allowed by name.",
    )


@lists.command()
@click.argument("network")
@_note_option
@_force_option
@json_option
def deny(network: str, note: str, force: bool, as_json: bool) -> None:
    """Turn NETWORK away, an address or several such as 203.0.113.0/24.

    With --json: {"list", "network", "note", "created_by", "created_at"}
    """
    _add("deny", network, note, force=force, as_json=as_json)


@lists.command()
@click.argument("network")
@_note_option
@_force_option
@json_option
def allow(network: str, note: str, force: bool, as_json: bool) -> None:
    """Let NETWORK in, an address or several such as 10.0.0.0/8.

    With --json: {"list", "network", "note", "created_by", "created_at"}
    """
    _add("allow", network, note, force=force, as_json=as_json)


@lists.command()
@click.argument("which", type=click.Choice(tuple(_LISTS)))
@click.argument("network")
@_force_option
@json_option
def remove(which: str, network: str, force: bool, as_json: bool) -> None:
    """Take NETWORK out of the list that denies, or of the one that allows.

    With --json: {"list", "network", "note", "created_by", "created_at"}
    """
    request = wire.RemoveAddressRuleRequest(list=_LISTS[which], network=network, force=force)

    async def work(calls: Calls) -> wire.RemoveAddressRuleResponse:
        return await calls(calls.stub.RemoveAddressRule, request)

    rule = ask(work).rule
    if as_json:
        print_json(plain(rule))
        return
    click.echo(f"{rule.network} is {_DONE[which]} no more.")


@click.command()
@click.option("--mode", type=click.Choice(tuple(_MODES)), help="Who is let in: all but those denied, or those allowed.")
@click.option("--ban-after", type=click.IntRange(0), metavar="N", help="Wrong keys or passwords; 0: nobody is banned.")
@click.option("--ban-window", metavar="SPAN", help="Within so long.")
@click.option("--ban-first", metavar="SPAN", help="How long the first ban lasts; the next within a day twice as long.")
@click.option("--ban-longest", metavar="SPAN", help="At most.")
@_force_option
@json_option
def policy(
    mode: str | None,
    ban_after: int | None,
    ban_window: str | None,
    ban_first: str | None,
    ban_longest: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Say who is let in, and when an address is banned. What is not said stays as it is.

    \b
    forebay security policy --ban-after 20 --ban-window 1m --ban-first 5m
    forebay security policy --mode restrictive

    With --json: {"mode", "ban_after", "ban_window_s", "ban_first_s", "ban_longest_s"}
    """
    request = wire.SetAddressPolicyRequest(
        mode=_MODES[mode] if mode else wire.ADDRESS_MODE_UNSPECIFIED,
        ban_after=ban_after,
        ban_window_s=_seconds(ban_window),
        ban_first_s=_seconds(ban_first),
        ban_longest_s=_seconds(ban_longest),
        force=force,
    )

    async def work(calls: Calls) -> wire.SetAddressPolicyResponse:
        return await calls(calls.stub.SetAddressPolicy, request)

    told = ask(work).policy
    if as_json:
        print_json(plain(told))
        return
    click.echo(_sentence(told))


def _add(which: str, network: str, note: str, *, force: bool, as_json: bool) -> None:
    request = wire.AddAddressRuleRequest(list=_LISTS[which], network=network, note=note, force=force)

    async def work(calls: Calls) -> wire.AddAddressRuleResponse:
        return await calls(calls.stub.AddAddressRule, request)

    rule = ask(work).rule
    if as_json:
        print_json(plain(rule))
        return
    click.echo(f"{rule.network} is {_DONE[which]}.")


def _seconds(text: str | None) -> int | None:
    return round(parse_duration(text).total_seconds()) if text else None


def _sentence(policy: wire.AddressPolicy) -> str:
    whom = "Everybody is let in but those that are denied."
    if policy.mode == wire.ADDRESS_MODE_RESTRICTIVE:
        whom = "Only those are let in that are allowed, and not denied."
    if not policy.ban_after:
        return f"{whom} Nobody is banned for wrong keys."
    return (
        f"{whom} An address is banned after {policy.ban_after} wrong keys or passwords within {span(policy.ban_window_s)}: "
        f"for {span(policy.ban_first_s)}, then for twice as long, up to {span(policy.ban_longest_s)}."
    )
