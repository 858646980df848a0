"""`forebay user show`, `rights`, `reset-password`, `password` and `add-service`: what users may, and what lets them in."""

from __future__ import annotations

import click

from forebay.wire.v1 import identity_pb2
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, visible
from forebay_admin.cli.plain import plain
from forebay_admin.json_form import moment

_ROLES = ("member", "auditor", "operator", "admin")


@click.command()
@click.argument("name", required=False, default="")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show what the user NAME may and is let in by; without a name, yourself.

    With --json: {"name", "role", "custom_roles", "is_service_account", "owner_group", "disabled", "has_password",
    "identities": [{"provider", "issuer", "subject", "linked_at"}]}
    """

    async def work(calls: Calls) -> identity_pb2.ShowUserResponse:
        return await calls(calls.stub.ShowUser, identity_pb2.ShowUserRequest(name=name))

    found = ask(work).user
    if as_json:
        print_json(plain(found))
        return
    _print(found)


@click.command()
@click.argument("name")
@click.option("--role", type=click.Choice(_ROLES), help="Their built-in role; custom ones: forebay role give.")
@click.option("--disable/--enable", "disabled", default=None, help="Whether anything lets them in; what runs goes on.")
@click.option("--owner-group", metavar="NAME", help="Of a service account: who answers for it.")
@json_option
def rights(name: str, role: str | None, disabled: bool | None, owner_group: str | None, as_json: bool) -> None:
    """Change what the user NAME may. What is not named stays as it is. Disabling ends their sessions.

    \b
    forebay user rights dana --role operator
    forebay user rights mallory --disable

    With --json: the user, as of `forebay user show`
    """
    request = identity_pb2.SetUserRightsRequest(name=name, role=role, disabled=disabled, owner_group=owner_group)

    async def work(calls: Calls) -> identity_pb2.SetUserRightsResponse:
        return await calls(calls.stub.SetUserRights, request)

    after = ask(work).user
    if as_json:
        print_json(plain(after))
        return
    _print(after)


@click.command("add-service")
@click.argument("name")
@click.option("--owner-group", required=True, metavar="NAME", help="The group that answers for it.")
@click.option("--role", type=click.Choice(_ROLES), default="member", show_default=True, help="What it may do.")
@click.option("--group", default="", metavar="NAME", help="Its group for shares and limits. Default: everyone.")
@json_option
def add_service(name: str, owner_group: str, role: str, group: str, as_json: bool) -> None:
    """Add the service account NAME: a user that is a program, with keys and tokens but without a password.

    With --json: the user, as of `forebay user show`
    """
    request = identity_pb2.AddServiceAccountRequest(name=name, owner_group=owner_group, role=role, group=group)

    async def work(calls: Calls) -> identity_pb2.AddServiceAccountResponse:
        return await calls(calls.stub.AddServiceAccount, request)

    made = ask(work).user
    if as_json:
        print_json(plain(made))
        return
    click.echo(f"Service account {made.name} added; {made.owner_group} answers for it.")
    click.echo(f"A key for it: forebay key create --user {made.name}")


@click.command("reset-password")
@click.argument("name")
@json_option
def reset_password(name: str, as_json: bool) -> None:
    """Make a link with which the user NAME sets a password of their own, good once and for a day. It takes back a lock after
    wrong passwords, too.

    With --json: {"token", "expires_at", "url"}
    """

    async def work(calls: Calls) -> identity_pb2.ResetPasswordResponse:
        return await calls(calls.stub.ResetPassword, identity_pb2.ResetPasswordRequest(user=name))

    made = ask(work)
    if as_json:
        print_json(plain(made))
        return
    click.echo(f"{name} sets a password at   {made.url}")
    click.echo(f"Good once, until {moment(made.expires_at_us)[:16].replace('T', ' ')} UTC. It is shown only this once.")


@click.command()
@click.option("--old", "old_password", prompt="Old password", hide_input=True, help="Asked for where it is not said.")
@click.option(
    "--new",
    "new_password",
    prompt="New password",
    hide_input=True,
    confirmation_prompt=True,
    help="At least 12 characters.",
)
@json_option
def password(old_password: str, new_password: str, as_json: bool) -> None:
    """Change your own password. Your other sessions end.

    With --json: {"ended_sessions": N}
    """
    request = identity_pb2.ChangePasswordRequest(old_password=old_password, new_password=new_password)

    async def work(calls: Calls) -> identity_pb2.ChangePasswordResponse:
        return await calls(calls.stub.ChangePassword, request)

    done = ask(work)
    if as_json:
        print_json(plain(done))
        return
    click.echo(f"Changed; {done.ended_sessions} other sessions ended.")


def _print(user: identity_pb2.UserIdentity) -> None:
    kind = f"a service account that {user.owner_group} answers for" if user.is_service_account else "a person"
    click.echo(f"{user.name}: {kind}{', DISABLED' if user.disabled else ''}")
    click.echo(f"roles      {visible(', '.join((user.role, *user.custom_roles)))}")
    ways = ["a password"] if user.has_password else []
    ways += [f"{one.provider} ({one.subject})" for one in user.identities]
    click.echo(f"signs in   {visible(', '.join(ways)) or 'not at all; keys and tokens let them in'}")
