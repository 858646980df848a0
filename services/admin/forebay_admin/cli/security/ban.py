"""`forebay ban`: addresses that are not let in for a while."""

from __future__ import annotations

import time

import click
from rich.markup import escape

from forebay.wire.v1 import security_pb2 as wire
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain
from forebay_admin.cli.words import age, moment, parse_duration


@click.group(short_help="Addresses that are not let in for a while.")
def ban() -> None:
    """Bans: addresses and networks that gateways and admin's HTTP port turn away for a while. Forebay makes some by itself,
    of addresses from which wrong keys or passwords come (`forebay security policy`): those let whoever has a valid key in.

    \b
    forebay ban list
    forebay ban add 203.0.113.7 --for 24h --reason "scans us"
    forebay ban remove 203.0.113.7
    """


@ban.command("list")
@click.option("--all", "over", is_flag=True, help="Also those that are over, for a day.")
@json_option
def list_bans(over: bool, as_json: bool) -> None:
    """List who is banned, the newest first.

    With --json: a list of {"network", "begun_at", "until", "reason", "made_by", "strikes", "spares_valid", "lifted_at",
    "lifted_by"}; "made_by" is "" where Forebay did, "until" null until it is taken back
    """

    async def work(calls: Calls) -> wire.ListBansResponse:
        return await calls(calls.stub.ListBans, wire.ListBansRequest(over=over))

    bans = ask(work).bans
    if as_json:
        print_json([plain(one) for one in bans])
        return
    now = time.time()
    print_table(
        ("Network", "Since", "Until", "By", "Lets valid keys in", "Reason"),
        (
            (
                escape(one.network),
                age(one.begun_at_us, now),
                _until(one),
                escape(one.made_by or "Forebay"),
                "yes" if one.spares_valid else "no",
                escape(one.reason),
            )
            for one in bans
        ),
        nothing="Nobody is banned.",
    )


@ban.command("add")
@click.argument("network")
@click.option("--for", "length", metavar="SPAN", help="How long: 30m, 24h, 7d. Default: until it is taken back.")
@click.option("--reason", default="", metavar="TEXT", help="Those who are banned are told.")
@click.option("--spare-valid", is_flag=True, help="Let whoever has a valid key, session or token in all the same.")
@click.option("--force", is_flag=True, help="Even if it locks you out, or this machine.")
@json_option
def add(network: str, length: str | None, reason: str, spare_valid: bool, force: bool, as_json: bool) -> None:
    """Ban NETWORK, an address or several such as 203.0.113.0/24, in place of a ban that it has.

    \b
    forebay ban add 2001:db8:1::/48 --for 7d --reason "guesses passwords"

    With --json: as one of `forebay ban list`
    """
    request = wire.AddBanRequest(
        network=network,
        lasts_s=round(parse_duration(length).total_seconds()) if length else 0,
        reason=reason,
        spare_valid=spare_valid,
        force=force,
    )

    async def work(calls: Calls) -> wire.AddBanResponse:
        return await calls(calls.stub.AddBan, request)

    made = ask(work).ban
    if as_json:
        print_json(plain(made))
        return
    click.echo(f"{made.network} is banned {_ends(made)}.")


@ban.command("remove")
@click.argument("network")
@json_option
def remove(network: str, as_json: bool) -> None:
    """Take the ban of NETWORK back.

    With --json: as one of `forebay ban list`
    """

    async def work(calls: Calls) -> wire.RemoveBanResponse:
        return await calls(calls.stub.RemoveBan, wire.RemoveBanRequest(network=network))

    lifted = ask(work).ban
    if as_json:
        print_json(plain(lifted))
        return
    click.echo(f"{lifted.network} is banned no more.")


def _until(one: wire.AddressBan) -> str:
    if one.HasField("lifted_at_us"):
        return f"taken back by {escape(one.lifted_by)}"
    return moment(one.until_us) if one.HasField("until_us") else "taken back"


def _ends(one: wire.AddressBan) -> str:
    return f"until {moment(one.until_us)}" if one.HasField("until_us") else "until it is taken back"
