"""`forebay group`: groups of users, how they nest, and what share each has."""

from __future__ import annotations

import click
from rich.markup import escape

from forebay.errors import BadInput
from forebay.wire.v1 import admin_pb2
from forebay_admin.cli.amounts import parse_weight, weight
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain
from forebay_admin.cli.words import count


@click.group()
def group() -> None:
    """Groups: who shares with whom.

    What engines can do is divided among the outermost groups by their weights, what a group gets among its members and the
    groups within it, and what a user gets among their keys. Only those who want something at the moment take part.

    \b
    forebay group preset university
    forebay group create physics --parent faculty --weight 2
    forebay group set physics --pause
    forebay group list
    """


@group.command()
@click.argument("name")
@click.option("--parent", default="", metavar="NAME", help="The group that it is within. Default: none, outermost.")
@click.option("--weight", "share", metavar="N", help="Its share against the groups and users beside it. Default: 1.")
@json_option
def create(name: str, parent: str, share: str | None, as_json: bool) -> None:
    """Make the group NAME.

    \b
    forebay group create physics
    forebay group create lasers --parent physics --weight 0.5

    With --json: {"id", "name", "parent_name", "weight_milli", "paused", "members", "created_at", …}
    """
    request = admin_pb2.AddGroupRequest(
        name=name, parent=parent, weight_milli=parse_weight(share) if share is not None else None
    )

    async def work(calls: Calls) -> admin_pb2.AddGroupResponse:
        return await calls(calls.stub.AddGroup, request)

    made = ask(work).group
    if as_json:
        print_json(plain(made))
        return
    click.echo(f"Group {made.name} made{_within(made)}, weight {weight(made.weight_milli)}.")


@group.command("list")
@json_option
def list_groups(as_json: bool) -> None:
    """List groups, each below the one that it is within.

    With --json: a list of {"id", "name", "parent_id", "parent_name", "weight_milli", "paused", "members", "created_at"},
    parents before their children
    """

    async def work(calls: Calls) -> admin_pb2.ListGroupsResponse:
        return await calls(calls.stub.ListGroups, admin_pb2.ListGroupsRequest())

    groups = ask(work).groups
    if as_json:
        print_json([plain(g) for g in groups])
        return
    depth: dict[str, int] = {}
    for g in groups:
        depth[g.id] = depth.get(g.parent_id, -1) + 1
    print_table(
        ("Name", "#Weight", "#Members", ""),
        (
            (
                "  " * depth[g.id] + escape(g.name),
                weight(g.weight_milli),
                count(g.members),
                "[yellow]paused[/yellow]" if g.paused else "",
            )
            for g in groups
        ),
        nothing="No groups. Make one with: forebay group create NAME",
    )


@group.command("set")
@click.argument("name")
@click.option("--parent", metavar="NAME", help="The group that it is to be within.")
@click.option("--no-parent", is_flag=True, help="It is to be outermost.")
@click.option("--weight", "share", metavar="N", help="Its share against the groups and users beside it.")
@click.option("--pause/--resume", "paused", default=None, help="What its members send waits until they are resumed.")
@json_option
def change(
    name: str, parent: str | None, no_parent: bool, share: str | None, paused: bool | None, as_json: bool
) -> None:
    """Change the group NAME. What is not named stays as it is; what runs goes on.

    \b
    forebay group set student --weight 1.5
    forebay group set lasers --parent optics
    forebay group set student --pause

    With --json: {"id", "name", "parent_name", "weight_milli", "paused", "members", …}
    """
    if parent is not None and no_parent:
        raise BadInput("Give --parent or --no-parent, not both.")
    request = admin_pb2.ChangeGroupRequest(
        name=name,
        parent="" if no_parent else parent,
        weight_milli=parse_weight(share) if share is not None else None,
        paused=paused,
    )

    async def work(calls: Calls) -> admin_pb2.ChangeGroupResponse:
        return await calls(calls.stub.ChangeGroup, request)

    after = ask(work).group
    if as_json:
        print_json(plain(after))
        return
    state = "; it is paused, so what its members send waits" if after.paused else ""
    click.echo(f"Group {after.name}{_within(after)} has weight {weight(after.weight_milli)}{state}.")


@group.command()
@click.argument("name")
@json_option
def remove(name: str, as_json: bool) -> None:
    """Remove the group NAME, in which nobody is any more. Its limits and budgets go with it.

    With --json: {"id", "name", "parent_name", "weight_milli", …}, as it was
    """

    async def work(calls: Calls) -> admin_pb2.RemoveGroupResponse:
        return await calls(calls.stub.RemoveGroup, admin_pb2.RemoveGroupRequest(name=name))

    gone = ask(work).group
    if as_json:
        print_json(plain(gone))
        return
    click.echo(f"Group {gone.name} is removed.")


@group.command()
@click.argument("name")
@json_option
def preset(name: str, as_json: bool) -> None:
    """Make the groups of a preset, or give them its weights where they are there already.

    \b
    university   faculty 3, staff 2, student 1, admin 10

    With --json: a list of {"id", "name", "weight_milli", …}
    """

    async def work(calls: Calls) -> admin_pb2.PresetGroupsResponse:
        return await calls(calls.stub.PresetGroups, admin_pb2.PresetGroupsRequest(preset=name))

    groups = ask(work).groups
    if as_json:
        print_json([plain(g) for g in groups])
        return
    click.echo("Groups: " + ", ".join(f"{g.name} {weight(g.weight_milli)}" for g in groups) + ".")
    click.echo("Put somebody into one with: forebay user set NAME --group GROUP")


def _within(g: admin_pb2.Group) -> str:
    return f" within {g.parent_name}" if g.parent_id else ""
