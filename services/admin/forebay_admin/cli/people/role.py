"""`forebay role`: sets of permissions, and who has them."""

from __future__ import annotations

import click
from rich.markup import escape

from forebay.wire.v1 import identity_pb2
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain
from forebay_admin.cli.words import count


@click.group()
def role() -> None:
    """Custom roles: sets of permissions, beside the built-in roles member, auditor, operator and admin.

    \b
    forebay role list
    forebay role set helpdesk users:read access:write --about "first line"
    forebay role give helpdesk --user dana
    """


@role.command("list")
@json_option
def list_roles(as_json: bool) -> None:
    """List custom roles, and all permissions that there are.

    With --json: {"roles": [{"name", "permissions", "about", "users"}], "permissions": […]}
    """

    async def work(calls: Calls) -> identity_pb2.ListCustomRolesResponse:
        return await calls(calls.stub.ListCustomRoles, identity_pb2.ListCustomRolesRequest())

    found = ask(work)
    if as_json:
        print_json(plain(found))
        return
    print_table(
        ("Name", "Permissions", "#Users", "About"),
        (
            (escape(one.name), escape(", ".join(one.permissions)), count(one.users), escape(one.about))
            for one in found.roles
        ),
        nothing="No custom roles. Make one with: forebay role set NAME PERMISSION …",
    )
    click.echo(f"Permissions: {', '.join(found.permissions)}; also calls by name, such as ShowUsage, and …:own.")


@role.command("set")
@click.argument("name")
@click.argument("permissions", nargs=-1, required=True, metavar="PERMISSION…")
@click.option("--about", default="", metavar="TEXT", help="What it is for.")
@json_option
def set_role(name: str, permissions: tuple[str, ...], about: str, as_json: bool) -> None:
    """Make the role NAME of these permissions, in place of those it had. None may be wider than what you may yourself.

    With --json: {"name", "permissions", "about", "users"}
    """
    request = identity_pb2.SetCustomRoleRequest(name=name, permissions=permissions, about=about)

    async def work(calls: Calls) -> identity_pb2.SetCustomRoleResponse:
        return await calls(calls.stub.SetCustomRole, request)

    made = ask(work).role
    if as_json:
        print_json(plain(made))
        return
    click.echo(f"Role {made.name}: {', '.join(made.permissions)}.")


@role.command("remove")
@click.argument("name")
@json_option
def remove(name: str, as_json: bool) -> None:
    """Remove the role NAME, which nobody has.

    With --json: {"name", "permissions", "about", "users"}
    """

    async def work(calls: Calls) -> identity_pb2.RemoveCustomRoleResponse:
        return await calls(calls.stub.RemoveCustomRole, identity_pb2.RemoveCustomRoleRequest(name=name))

    gone = ask(work).role
    if as_json:
        print_json(plain(gone))
        return
    click.echo(f"Role {gone.name} removed.")


@role.command()
@click.argument("name")
@click.option("--user", required=True, metavar="NAME", help="Who gets it.")
@json_option
def give(name: str, user: str, as_json: bool) -> None:
    """Give a user the custom role NAME, beside those they have.

    With --json: the user, as of `forebay user show`
    """
    _change(user, as_json, added=name)


@role.command()
@click.argument("name")
@click.option("--user", required=True, metavar="NAME", help="Who has it.")
@json_option
def take(name: str, user: str, as_json: bool) -> None:
    """Take the custom role NAME from a user.

    With --json: the user, as of `forebay user show`
    """
    _change(user, as_json, removed=name)


def _change(user: str, as_json: bool, *, added: str = "", removed: str = "") -> None:
    async def work(calls: Calls) -> identity_pb2.UserIdentity:
        held = (await calls(calls.stub.ShowUser, identity_pb2.ShowUserRequest(name=user))).user.custom_roles
        wanted = [name for name in held if name.lower() not in (added.lower(), removed.lower())]
        names = identity_pb2.CustomRoleNames(names=[*wanted, *([added] if added else [])])
        request = identity_pb2.SetUserRightsRequest(name=user, custom_roles=names)
        return (await calls(calls.stub.SetUserRights, request)).user

    after = ask(work)
    if as_json:
        print_json(plain(after))
        return
    click.echo(f"{after.name} has the roles {', '.join((after.role, *after.custom_roles))}.")
