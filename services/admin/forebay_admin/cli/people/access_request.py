"""`forebay user requests`, `approve` and `deny`: who is no user yet and asks to be one."""

from __future__ import annotations

import time

import click
from rich.markup import escape

from forebay.wire.v1 import access_requests_pb2
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain, word
from forebay_admin.cli.words import age, coloured
from forebay_admin.json_form import moment


@click.command("requests")
@click.option("--all", "include_decided", is_flag=True, help="Those that are decided too.")
@json_option
def access_requests(include_decided: bool, as_json: bool) -> None:
    """List who asks to be let in, the newest first. Names and mail addresses are as they say them.

    With --json: a list of {"id", "name", "mail", "reason", "state", "created_at", "address", "user_name", …}
    """
    wanted = access_requests_pb2.ListAccessRequestsRequest(include_decided=include_decided)

    async def work(calls: Calls) -> access_requests_pb2.ListAccessRequestsResponse:
        return await calls(calls.stub.ListAccessRequests, wanted)

    found = ask(work).requests
    if as_json:
        print_json([plain(one) for one in found])
        return
    now = time.time()
    print_table(
        ("Id", "Name", "Mail", "Because", "State", "Asked", "User"),
        (
            (
                one.id,
                escape(one.name),
                escape(one.mail),
                escape(one.reason),
                coloured(word(one, "state") or "unknown"),
                age(one.created_at_us, now),
                escape(one.user_name),
            )
            for one in found
        ),
        nothing="Nobody asks to be let in.",
    )


@click.command(short_help="Make a user for who asks to be let in.")
@click.argument("request_id", metavar="ID")
@click.option("--user", default="", metavar="NAME", help="What the user is called. Default: as their mail.")
@click.option("--group", default="", metavar="NAME", help="Their group, made when it is new. Default: everyone.")
@click.option("--answer", default="", metavar="TEXT", help="A word that is kept with it.")
@json_option
def approve(request_id: str, user: str, group: str, answer: str, as_json: bool) -> None:
    """Make the user whom the request ID asks for, and a link with which they set a password.

    With --json: {"request": {…}, "url", "url_expires_at"}
    """
    wanted = access_requests_pb2.DecideAccessRequestRequest(
        id=request_id, approve=True, answer=answer, user=user, group=group
    )
    decided = _decide(wanted)
    if as_json:
        print_json(plain(decided))
        return
    click.echo(f"User {decided.request.user_name} added. Send to {decided.request.mail}:   {decided.url}")
    click.echo(
        f"Good once, until {moment(decided.url_expires_at_us)[:16].replace('T', ' ')} UTC. It is shown only this once."
    )


@click.command(short_help="Let somebody who asks not in.")
@click.argument("request_id", metavar="ID")
@click.option("--answer", default="", metavar="TEXT", help="A word that is kept with it.")
@json_option
def deny(request_id: str, answer: str, as_json: bool) -> None:
    """Close the request ID. Whoever asked is not told.

    With --json: {"request": {…}}
    """
    decided = _decide(access_requests_pb2.DecideAccessRequestRequest(id=request_id, answer=answer))
    if as_json:
        print_json(plain(decided))
        return
    click.echo(f"{decided.request.name} is not let in.")


def _decide(
    wanted: access_requests_pb2.DecideAccessRequestRequest,
) -> access_requests_pb2.DecideAccessRequestResponse:
    async def work(calls: Calls) -> access_requests_pb2.DecideAccessRequestResponse:
        return await calls(calls.stub.DecideAccessRequest, wanted)

    return ask(work)
