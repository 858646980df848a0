"""`forebay fleet`: the fleet that is wanted as a file, and every version that it had."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click
from rich.markup import escape

from forebay.errors import NotFound
from forebay.wire.v1 import fleet_pb2
from forebay_admin.cli.amounts import MOST_VERSION
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.fleet.changes import in_short, print_changes
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain
from forebay_admin.cli.words import age
from forebay_admin.fleet.fleet_file import write_fleet_file


@click.group(short_help="The fleet as a file, and its versions.")
def fleet() -> None:
    """The whole fleet that is wanted, as a file, and every version that it had.

    \b
    forebay fleet export > fleet.yaml
    forebay fleet history
    forebay fleet history 7
    """


@fleet.command()
@click.option(
    "--version",
    type=click.IntRange(0, MOST_VERSION),
    metavar="N",
    help="As it was at that version. Default: the newest.",
)
@json_option
def export(version: int | None, as_json: bool) -> None:
    """Print the fleet as a file that `forebay apply` takes. Engines' keys are not in it. How pools place requests and the
    aliases of models are in the newest version only.

    \b
    forebay fleet export > fleet.yaml
    forebay fleet export --version 3

    With --json: {"version", "fleet": {"nodes", "backends", "pools", "models"}}
    """

    async def work(calls: Calls) -> fleet_pb2.ExportFleetResponse:
        return await calls(calls.stub.ExportFleet, fleet_pb2.ExportFleetRequest(version=version))

    told = ask(work)
    if as_json:
        print_json({"version": told.version, "fleet": plain(told.fleet)})
        return
    click.echo(f"# The fleet at version {told.version}.")
    click.echo(write_fleet_file(told.fleet), nl=False)


@fleet.command()
@click.argument("version", required=False, type=click.IntRange(1, MOST_VERSION))
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many, newest first.")
@json_option
def history(version: int | None, limit: int, as_json: bool) -> None:
    """List the versions of the fleet: who made each, when, and what it changed; with VERSION, all of that one.

    With --json: a list of {"version", "at", "actor", "changes"}; with VERSION one of them
    """
    request = fleet_pb2.ShowFleetVersionsRequest(limit=limit)
    if version is not None:
        request = fleet_pb2.ShowFleetVersionsRequest(limit=1, before_version=version + 1)

    async def work(calls: Calls) -> fleet_pb2.ShowFleetVersionsResponse:
        return await calls(calls.stub.ShowFleetVersions, request)

    versions = ask(work).versions
    if version is not None:
        _show_version(version, versions, as_json=as_json)
        return
    if as_json:
        print_json([plain(v) for v in versions])
        return
    now = time.time()
    print_table(
        ("Version", "When", "Who", "What"),
        ((str(v.version), age(v.at_us, now), escape(v.actor), escape(in_short(v.changes))) for v in versions),
        nothing="The fleet has not been changed yet.",
    )


def _show_version(version: int, found: Sequence[fleet_pb2.FleetVersion], *, as_json: bool) -> None:
    if not found or found[0].version != version:
        raise NotFound(f"There is no version {version} of the fleet; see: forebay fleet history")
    if as_json:
        print_json(plain(found[0]))
        return
    click.echo(f"Version {version}, by {found[0].actor}, {age(found[0].at_us, time.time())}:")
    print_changes(found[0].changes)
