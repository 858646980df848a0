"""`forebay user`: add, list and change users; what they may is `user_access`."""

from __future__ import annotations

import time

import click
from rich.markup import escape

from forebay.wire.v1 import admin_pb2
from forebay_admin.cli.amounts import parse_cap, parse_weight, weight
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.people.access_request import access_requests, approve, deny
from forebay_admin.cli.people.imports import import_users
from forebay_admin.cli.people.user_access import add_service, password, reset_password, rights, show
from forebay_admin.cli.plain import plain, word
from forebay_admin.cli.words import age, count

_ROLES = {
    "member": admin_pb2.ROLE_MEMBER,
    "auditor": admin_pb2.ROLE_AUDITOR,
    "operator": admin_pb2.ROLE_OPERATOR,
    "admin": admin_pb2.ROLE_ADMIN,
}


@click.group()
def user() -> None:
    """Users: people and programs that share the engines.

    \b
    forebay user add alice
    forebay user add dana --role operator --group research
    forebay user set dana --weight 2
    forebay user list
    forebay user import people.csv
    """


@user.command()
@click.argument("name")
@click.option("--role", type=click.Choice(list(_ROLES)), default="member", show_default=True, help="What they may do.")
@click.option("--group", default="", metavar="NAME", help="Their group, made when it is new. Default: everyone.")
@json_option
def add(name: str, role: str, group: str, as_json: bool) -> None:
    """Add the user NAME. They get in with a key: forebay key create --user NAME

    \b
    member    uses models; makes, sees and revokes their own keys; sees their own usage
    auditor   also sees everybody's users, keys, usage, backends and nodes
    operator  also adds and removes backends and nodes
    admin     everything

    With --json: {"id", "name", "group_name", "role", "created_at", "disabled", …}
    """
    request = admin_pb2.AddUserRequest(name=name, group=group, role=_ROLES[role])

    async def work(calls: Calls) -> admin_pb2.AddUserResponse:
        return await calls(calls.stub.AddUser, request)

    added = ask(work).user
    if as_json:
        print_json(plain(added))
        return
    click.echo(f"User {added.name} added to {added.group_name} as {word(added, 'role')}.")
    click.echo(f"A key for them: forebay key create --user {added.name}")


@user.command("list")
@click.option("--text", default="", metavar="TEXT", help="Only those with this in their name.")
@click.option("--group", default="", metavar="NAME", help="Only this group's members.")
@click.option("--role", type=click.Choice(list(_ROLES)), help="Only those who have it.")
@click.option("--disabled/--enabled", default=None, help="Only those who are let in no more, or who are.")
@json_option
def list_users(text: str, group: str, role: str | None, disabled: bool | None, as_json: bool) -> None:
    """List users by name.

    \b
    forebay user list --group research --role operator

    With --json: a list of {"id", "name", "group_name", "role", "created_at", "disabled", "weight_milli", "max_queued",
    "paused", …}
    """

    request = admin_pb2.ListUsersRequest(
        text=text, group=group, role=_ROLES[role] if role else admin_pb2.ROLE_UNSPECIFIED, disabled=disabled
    )

    async def work(calls: Calls) -> admin_pb2.ListUsersResponse:
        return await calls(calls.stub.ListUsers, request)

    users = ask(work).users
    if as_json:
        print_json([plain(u) for u in users])
        return
    now = time.time()
    print_table(
        ("Name", "Group", "Role", "#Weight", "#May queue", "Added", ""),
        (
            (
                escape(u.name),
                escape(u.group_name),
                word(u, "role") or "",
                weight(u.weight_milli),
                count(u.max_queued) if u.max_queued else "default",
                age(u.created_at_us, now),
                "[red]disabled[/red]" if u.disabled else "[yellow]paused[/yellow]" if u.paused else "",
            )
            for u in users
        ),
        nothing="No users. Add one with: forebay user add NAME",
    )


@user.command("set")
@click.argument("name")
@click.option("--group", metavar="NAME", help="The group that they move to.")
@click.option("--weight", "share", metavar="N", help="Their share against others of their group.")
@click.option("--max-queued", "queued", metavar="N|default", help="How many of their requests may wait at once.")
@click.option("--pause/--resume", "paused", default=None, help="What they send waits until they are resumed.")
@json_option
def change(
    name: str, group: str | None, share: str | None, queued: str | None, paused: bool | None, as_json: bool
) -> None:
    """Change the user NAME. What is not named stays as it is; what runs goes on.

    \b
    forebay user set alice --group faculty --weight 2
    forebay user set alice --max-queued 20
    forebay user set alice --pause

    With --json: {"id", "name", "group_name", "weight_milli", "max_queued", "paused", …}
    """
    request = admin_pb2.ChangeUserRequest(
        name=name,
        group=group,
        weight_milli=parse_weight(share) if share is not None else None,
        max_queued=(parse_cap(queued, "default", most=1_000_000) or 0) if queued is not None else None,
        paused=paused,
    )

    async def work(calls: Calls) -> admin_pb2.ChangeUserResponse:
        return await calls(calls.stub.ChangeUser, request)

    after = ask(work).user
    if as_json:
        print_json(plain(after))
        return
    state = "; they are paused, so what they send waits" if after.paused else ""
    click.echo(f"User {after.name} of {after.group_name} has weight {weight(after.weight_milli)}{state}.")


for command in (show, rights, add_service, reset_password, password, import_users, access_requests, approve, deny):
    user.add_command(command)
