"""`forebay token`: bearers for operators' calls that may do less than their user."""

from __future__ import annotations

import time

import click
from rich.markup import escape

from forebay.wire.v1 import identity_pb2
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain
from forebay_admin.cli.words import age, ahead, parse_duration


@click.group()
def token() -> None:
    """Narrow tokens for programs that operate Forebay: they may do some of what their user may, and use no models.

    \b
    forebay token create --name ci --may fleet:read --may status:read --expires 30d
    forebay token list
    forebay token revoke 5f0c2d9a41be
    """


@token.command()
@click.option("--may", "permissions", multiple=True, required=True, metavar="PERMISSION", help="See forebay role list.")
@click.option("--name", default="", metavar="TEXT", help="Where it is, such as ci.")
@click.option("--user", default="", metavar="NAME", help="Whose it is. Default: yours.")
@click.option("--expires", metavar="TIME", help="How long it lives: 12h, 30d, 52w. Default: 90d.")
@json_option
def create(permissions: tuple[str, ...], name: str, user: str, expires: str | None, as_json: bool) -> None:
    """Make a token. It is shown only this once.

    With --json: {"token": {"id", "name", "user_name", "permissions", "expires_at", …}, "secret": "fbadm-…"}
    """
    request = identity_pb2.CreateTokenRequest(
        user=user,
        name=name,
        permissions=permissions,
        expires_in_s=round(parse_duration(expires).total_seconds()) if expires else None,
    )

    async def work(calls: Calls) -> identity_pb2.CreateTokenResponse:
        return await calls(calls.stub.CreateToken, request)

    made = ask(work)
    if as_json:
        print_json(plain(made))
        return
    click.echo(f"Token {made.secret} made for {made.token.user_name}. It is shown only this once.")


@token.command("list")
@click.option("--user", default="", metavar="NAME", help="Only this user's.")
@click.option("--all", "include_revoked", is_flag=True, help="Revoked ones, too.")
@json_option
def list_tokens(user: str, include_revoked: bool, as_json: bool) -> None:
    """List tokens, oldest first.

    With --json: a list of {"id", "name", "user_name", "permissions", "created_at", "expires_at", "last_used_at", …}
    """
    request = identity_pb2.ListTokensRequest(user=user, include_revoked=include_revoked)

    async def work(calls: Calls) -> identity_pb2.ListTokensResponse:
        return await calls(calls.stub.ListTokens, request)

    found = ask(work).tokens
    if as_json:
        print_json([plain(one) for one in found])
        return
    now = time.time()
    print_table(
        ("Id", "Name", "User", "May", "Expires", "Used", ""),
        (
            (
                one.id,
                escape(one.name),
                escape(one.user_name),
                escape(", ".join(one.permissions)),
                ahead(one.expires_at_us, now) if one.HasField("expires_at_us") else "never",
                age(one.last_used_at_us, now) if one.last_used_at_us else "never",
                "[red]revoked[/red]" if one.HasField("revoked_at_us") else "",
            )
            for one in found
        ),
        nothing="No tokens. Make one with: forebay token create --may PERMISSION",
    )


@token.command()
@click.argument("token_id", metavar="ID")
@json_option
def revoke(token_id: str, as_json: bool) -> None:
    """Revoke the token ID, for good.

    With --json: {"id", "name", "user_name", "revoked_at", …}
    """

    async def work(calls: Calls) -> identity_pb2.RevokeTokenResponse:
        return await calls(calls.stub.RevokeToken, identity_pb2.RevokeTokenRequest(id=token_id))

    gone = ask(work).token
    if as_json:
        print_json(plain(gone))
        return
    click.echo(f"Token {gone.id} ({gone.name}) of {gone.user_name} is revoked.")
