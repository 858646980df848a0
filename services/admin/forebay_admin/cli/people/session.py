"""`forebay session`: who is signed in, and signing them out."""

from __future__ import annotations

import time

import click
from rich.markup import escape

from forebay.errors import BadInput
from forebay.wire.v1 import identity_pb2
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain, word
from forebay_admin.cli.words import age, ahead


@click.group()
def session() -> None:
    """Sessions: who is signed in, where, and since when.

    \b
    forebay session list
    forebay session end 5f0c2d9a41be
    forebay session end --user alice
    """


@session.command("list")
@click.option("--user", default="", metavar="NAME", help="Only this user's.")
@json_option
def list_sessions(user: str, as_json: bool) -> None:
    """List sessions, the last used first.

    With --json: a list of {"id", "user_name", "kind", "way", "created_at", "last_seen_at", "expires_at", "address",
    "user_agent", "is_this"}
    """

    async def work(calls: Calls) -> identity_pb2.ListSessionsResponse:
        return await calls(calls.stub.ListSessions, identity_pb2.ListSessionsRequest(user=user))

    found = ask(work).sessions
    if as_json:
        print_json([plain(one) for one in found])
        return
    now = time.time()
    print_table(
        ("Id", "User", "Kind", "By", "From", "Calls itself", "Used", "Expires", ""),
        (
            (
                one.id,
                escape(one.user_name),
                word(one, "kind") or "",
                escape(one.way),
                escape(one.address),
                escape(one.user_agent[:40]),
                age(one.last_seen_at_us, now),
                ahead(one.expires_at_us, now),
                "this one" if one.is_this else "",
            )
            for one in found
        ),
        nothing="Nobody is signed in.",
    )


@session.command()
@click.argument("session_id", metavar="[ID]", required=False)
@click.option("--user", metavar="NAME", help="All of this user's.")
@json_option
def end(session_id: str | None, user: str | None, as_json: bool) -> None:
    """End the session ID, or all of a user's.

    With --json: {"ended": N}
    """
    if (session_id is None) == (user is None):
        raise BadInput("Say which session ends: its ID, or --user for all of somebody's.")

    async def work(calls: Calls) -> int:
        if user is not None:
            return (await calls(calls.stub.EndSessions, identity_pb2.EndSessionsRequest(user=user))).ended
        await calls(calls.stub.EndSession, identity_pb2.EndSessionRequest(id=session_id or ""))
        return 1

    ended = ask(work)
    if as_json:
        print_json({"ended": ended})
        return
    click.echo(f"{ended} session{'' if ended == 1 else 's'} ended.")
